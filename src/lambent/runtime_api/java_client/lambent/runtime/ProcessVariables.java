package lambent.runtime;

import java.lang.reflect.Constructor;
import java.lang.reflect.Method;
import java.util.Map;

/**
 * The environment variables of the process itself, which the programs inherit that a function starts.
 *
 * <p>Java cannot set them, since nobody needs that but us: a virtual machine that was started before it had a function must hand on that
 * function's. So the C library's {@code environ} is looked up as Java looks up native methods, and pointed to variables of ours. That takes
 * the insides of the standard library; they are opened to this class alone. Where they are other than expected, {@link #check} says so, and
 * there are no virtual machines that are started ahead.
 */
final class ProcessVariables {
    private ProcessVariables() {
    }

    /** Throws what would keep {@link #replace} from working. */
    static void check() throws ReflectiveOperationException {
        Memory memory = new Memory();
        if (memory.read(memory.read(environ())) == 0) {
            throw new ReflectiveOperationException("the process has no environment");
        }
    }

    static void replace(Map<String, String> variables) throws ReflectiveOperationException {
        Memory memory = new Memory();
        long pointers = memory.allocate(8L * (variables.size() + 1));
        long at = pointers;
        for (Map.Entry<String, String> each : variables.entrySet()) {
            memory.write(at, memory.text(each.getKey() + "=" + each.getValue()));
            at += 8;
        }
        memory.write(at, 0);
        memory.write(environ(), pointers);
    }

    /** The address of the variable. A library without a handle is all that the process has loaded. */
    private static long environ() throws ReflectiveOperationException {
        open("jdk.internal.loader");
        Class<?> type = Class.forName("jdk.internal.loader.NativeLibraries$NativeLibraryImpl");
        Constructor<?> constructor = type.getDeclaredConstructors()[0];
        Class<?>[] takes = constructor.getParameterTypes();
        Object[] arguments = new Object[takes.length];
        for (int i = 0; i < takes.length; i++) {
            arguments[i] = takes[i] == Class.class ? Main.class : takes[i] == String.class ? "process" : Boolean.FALSE;
        }
        constructor.setAccessible(true);
        Method find = type.getMethod("find", String.class);
        find.setAccessible(true);
        long address = (Long) find.invoke(constructor.newInstance(arguments), "environ");
        if (address == 0) {
            throw new ReflectiveOperationException("the C library has no environ");
        }
        return address;
    }

    /** Open a package of the standard library to our module, and to no other. */
    private static void open(String name) throws ReflectiveOperationException {
        Method getModule = Class.class.getMethod("getModule");
        Method opens = Class.forName("java.lang.Module").getDeclaredMethod("implAddOpens", String.class, getModule.getReturnType());
        opens.setAccessible(true);
        opens.invoke(getModule.invoke(Object.class), name, getModule.invoke(Main.class));
    }

    /** Memory outside the heap, which is never given back. */
    private static final class Memory {
        private final Object unsafe;
        private final Method allocate;
        private final Method read;
        private final Method write;
        private final Method writeByte;

        Memory() throws ReflectiveOperationException {
            open("jdk.internal.misc");
            Class<?> type = Class.forName("jdk.internal.misc.Unsafe");
            unsafe = type.getMethod("getUnsafe").invoke(null);
            allocate = type.getMethod("allocateMemory", long.class);
            read = type.getMethod("getAddress", long.class);
            write = type.getMethod("putAddress", long.class, long.class);
            writeByte = type.getMethod("putByte", long.class, byte.class);
        }

        long allocate(long size) throws ReflectiveOperationException {
            return (Long) allocate.invoke(unsafe, size);
        }

        long read(long address) throws ReflectiveOperationException {
            return (Long) read.invoke(unsafe, address);
        }

        void write(long address, long value) throws ReflectiveOperationException {
            write.invoke(unsafe, address, value);
        }

        long text(String text) throws ReflectiveOperationException {
            byte[] bytes = text.getBytes(Output.UTF_8);
            long address = allocate(bytes.length + 1L);
            for (int i = 0; i < bytes.length; i++) {
                writeByte.invoke(unsafe, address + i, bytes[i]);
            }
            writeByte.invoke(unsafe, address + bytes.length, (byte) 0);
            return address;
        }
    }
}
