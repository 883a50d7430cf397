package lambent.runtime;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import com.amazonaws.services.lambda.runtime.RequestStreamHandler;
import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.Type;
import java.lang.reflect.TypeVariable;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;

/**
 * From the handler setting to something that can be called, by AWS's rules (contract 03, 7).
 *
 * <p>{@code pkg.Class} names a {@link RequestHandler} or {@link RequestStreamHandler}; {@code pkg.Class::method} any public method that
 * takes, in this order and each optional, an input, an output stream beside an input stream, and the context. Of several methods with the
 * name, those that are no compiler's bridges come first, then the longer, where a context at the end counts twice.
 *
 * <p>What is wrong with a handler is told to each invocation; what its class or constructor throws is an init error.
 */
final class Handlers {
    private static final byte[] NULL = {'n', 'u', 'l', 'l'};

    private final ClassLoader loader;
    private Serializer serializer;

    private Handlers(ClassLoader loader) {
        this.loader = loader;
    }

    /** Throws a fatal {@link Fault}; other faults are what the returned handler throws. */
    static Handler load(String handler, ClassLoader loader) {
        try {
            return new Handlers(loader).find(handler);
        } catch (Fault fault) {
            if (fault.fatal) {
                throw fault;
            }
            return new Faulty(fault);
        }
    }

    private Handler find(String handler) {
        int colons = handler.lastIndexOf("::");
        String name = colons < 0 ? handler : handler.substring(0, colons);
        String method = colons < 0 ? null : handler.substring(colons + 2);
        if (name.isEmpty() || method != null && method.isEmpty()) {
            throw new Fault("Invalid handler: `" + handler + "'");
        }
        Class<?> type = type(name);
        try {
            return method == null ? ofInterface(type) : ofMethod(type, method);
        } catch (Fault fault) {
            throw fault;
        } catch (Throwable thrown) {
            throw Fault.of(thrown, false);
        }
    }

    private Class<?> type(String name) {
        try {
            return Class.forName(name, true, loader);
        } catch (ClassNotFoundException missing) {
            throw Fault.classNotFound(missing, name);
        } catch (NoClassDefFoundError incomplete) {
            throw Fault.loading(incomplete, name, false);
        } catch (Throwable thrown) {
            throw Fault.loading(thrown, name, true);
        }
    }

    private Handler ofInterface(Class<?> type) throws Exception {
        if (RequestStreamHandler.class.isAssignableFrom(type)) {
            return new Streams((RequestStreamHandler) instance(type));
        }
        if (!RequestHandler.class.isAssignableFrom(type)) {
            throw new Fault("Class does not implement an appropriate handler interface: " + type.getName());
        }
        Type[] types = Types.arguments(type, RequestHandler.class);
        if (types == null) {
            throw new Fault("Class " + type.getName() + " does not implement RequestHandler with concrete type parameters");
        }
        for (Type each : types) {
            if (each instanceof TypeVariable && Types.bound(each) == Object.class) {
                throw new Fault("Class " + type.getName() + " does not implement RequestHandler with concrete type parameters: parameter "
                        + each + " has no upper bound.");
            }
        }
        @SuppressWarnings("unchecked")
        RequestHandler<Object, Object> handler = (RequestHandler<Object, Object>) instance(type);
        return new Values(serializer(), new Interface(handler), types[0], types[1]);
    }

    private Handler ofMethod(Class<?> type, String name) throws Exception {
        Method[] all;
        try {
            all = type.getMethods();
        } catch (NoClassDefFoundError incomplete) {
            throw new Fault("Error loading method " + name + " on class " + type.getName(), incomplete.getClass().getName(),
                    Fault.trace(incomplete), false);
        }
        List<Method> named = new ArrayList<Method>();
        for (Method each : all) {
            if (each.getName().equals(name)) {
                named.add(each);
            }
        }
        Collections.sort(named, new Preference());
        for (Method each : named) {
            String refusal = refusal(each);
            if (refusal == null) {
                return ofMethod(type, each);
            }
            System.err.println(refusal);
        }
        throw new Fault("No public method named " + name + " with appropriate method signature found on class " + type.getName());
    }

    /** Why a method cannot be a handler; null if it can. */
    private static String refusal(Method method) {
        Class<?>[] takes = method.getParameterTypes();
        if (takes.length > 3) {
            return "Ignoring an overload of method " + method.getName() + " because it has too many parameters: Expected at most 3, got "
                    + takes.length;
        }
        if (takes.length == 3) {
            boolean fits = takes[0] == InputStream.class && takes[1] == OutputStream.class && takes[2] == Context.class;
            return fits ? null
                    : "Ignoring three-argument overload because argument signature is not (InputStream, OutputStream, Context";
        }
        if (takes.length < 2 || takes[1] == Context.class && takes[0] != Context.class) {
            return null;
        }
        if (takes[0] == Context.class) {
            return "Ignoring two-argument overload because first argument type is Context";
        }
        if (takes[0] == OutputStream.class) {
            return "Ignoring two-argument overload because first argument type is OutputStream and second argument type is not Context";
        }
        if (takes[0] != InputStream.class) {
            return "Ignoring two-argument overload because second parameter type is not Context";
        }
        return takes[1] == OutputStream.class ? null
                : "Ignoring two-argument overload because second parameter type, " + takes[1].getName() + ", is not OutputStream.";
    }

    private Handler ofMethod(Class<?> type, Method method) throws Exception {
        Class<?>[] takes = method.getParameterTypes();
        Object instance = Modifier.isStatic(method.getModifiers()) ? null : instance(type);
        if (takes.length > 0 && (takes[0] == InputStream.class || takes[0] == OutputStream.class)) {
            return new StreamMethod(method, instance);
        }
        boolean input = takes.length > 0 && takes[0] != Context.class;
        boolean context = takes.length > 0 && takes[takes.length - 1] == Context.class;
        Type in = input ? Types.substitute(method.getGenericParameterTypes()[0], Types.bindings(type)) : null;
        Type out = Types.substitute(method.getGenericReturnType(), Types.bindings(type));
        return new Values(serializer(), new Called(method, instance, input, context), in, out);
    }

    private Serializer serializer() {
        if (serializer == null) {
            serializer = Serializer.find(loader);
        }
        return serializer;
    }

    private static Object instance(Class<?> type) throws Exception {
        Constructor<?> constructor;
        try {
            constructor = type.getConstructor();
        } catch (NoSuchMethodException none) {
            if (type.getEnclosingClass() != null && !Modifier.isStatic(type.getModifiers())) {
                throw new Exception("Class " + type.getName() + " cannot be instantiated because it is a non-static inner class");
            }
            throw new Exception("Class " + type.getName() + " has no public zero-argument constructor", none);
        }
        try {
            return constructor.newInstance();
        } catch (InvocationTargetException thrown) {
            throw Fault.of(thrown.getCause() == null ? thrown : thrown.getCause(), true);
        }
    }

    private static final class Preference implements Comparator<Method> {
        @Override
        public int compare(Method left, Method right) {
            if (left.isBridge() != right.isBridge()) {
                return left.isBridge() ? 1 : -1;
            }
            return Integer.compare(weight(right.getParameterTypes()), weight(left.getParameterTypes()));
        }

        private static int weight(Class<?>[] takes) {
            return takes.length + (takes.length > 0 && takes[takes.length - 1] == Context.class ? 1 : 0);
        }
    }

    /** Says what is wrong, each time. */
    private static final class Faulty implements Handler {
        private final Fault fault;

        Faulty(Fault fault) {
            this.fault = fault;
        }

        @Override
        public void call(byte[] event, Output output, FunctionContext context) {
            throw fault;
        }
    }

    private static final class Streams implements Handler {
        private final RequestStreamHandler handler;

        Streams(RequestStreamHandler handler) {
            this.handler = handler;
        }

        @Override
        public void call(byte[] event, Output output, FunctionContext context) throws Throwable {
            handler.handleRequest(new ByteArrayInputStream(event), output, context);
        }
    }

    private static final class StreamMethod implements Handler {
        private final Method method;
        private final Object instance;

        StreamMethod(Method method, Object instance) {
            this.method = method;
            this.instance = instance;
        }

        @Override
        public void call(byte[] event, Output output, FunctionContext context) throws Throwable {
            Class<?>[] takes = method.getParameterTypes();
            Object[] arguments = new Object[takes.length];
            for (int i = 0; i < takes.length; i++) {
                arguments[i] = takes[i] == InputStream.class ? new ByteArrayInputStream(event)
                        : takes[i] == OutputStream.class ? output : context;
            }
            invoke(method, instance, arguments);
        }
    }

    /** A handler of values, and the JSON on both sides of it. */
    private static final class Values implements Handler {
        private final Serializer serializer;
        private final Callee callee;
        private final Type in; // null: takes none
        private final Type out;

        Values(Serializer serializer, Callee callee, Type in, Type out) {
            this.serializer = serializer;
            this.callee = callee;
            this.in = in;
            this.out = out;
        }

        @Override
        public void call(byte[] event, Output output, FunctionContext context) throws Throwable {
            Object input;
            try {
                input = in == null ? null : serializer.read(event, in);
            } catch (Throwable thrown) {
                throw new RuntimeException("An error occurred during JSON parsing", thrown);
            }
            Object answer = callee.call(input, context);
            try {
                if (out == void.class || out == Void.class) {
                    output.write(NULL);
                } else {
                    serializer.write(answer, output, out);
                }
            } catch (Throwable thrown) {
                throw new RuntimeException("An error occurred during JSON serialization of response", thrown);
            }
        }
    }

    private interface Callee {
        Object call(Object input, Context context) throws Throwable;
    }

    private static final class Interface implements Callee {
        private final RequestHandler<Object, Object> handler;

        Interface(RequestHandler<Object, Object> handler) {
            this.handler = handler;
        }

        @Override
        public Object call(Object input, Context context) {
            return handler.handleRequest(input, context);
        }
    }

    private static final class Called implements Callee {
        private final Method method;
        private final Object instance;
        private final boolean input;
        private final boolean context;

        Called(Method method, Object instance, boolean input, boolean context) {
            this.method = method;
            this.instance = instance;
            this.input = input;
            this.context = context;
        }

        @Override
        public Object call(Object value, Context given) throws Throwable {
            Object[] arguments = input && context ? new Object[] {value, given}
                    : input ? new Object[] {value} : context ? new Object[] {given} : new Object[0];
            return invoke(method, instance, arguments);
        }
    }

    private static Object invoke(Method method, Object instance, Object[] arguments) throws Throwable {
        try {
            return method.invoke(instance, arguments);
        } catch (InvocationTargetException thrown) {
            throw thrown.getCause() == null ? thrown : thrown.getCause();
        }
    }
}
