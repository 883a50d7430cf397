package lambent.runtime;

import java.lang.reflect.Field;
import java.util.Collections;
import java.util.Map;

/**
 * The environment variables as the function sees them.
 *
 * <p>Java reads them once. A virtual machine that was started before it had a function must show that function's, so the map behind
 * {@code System.getenv} is filled anew. The manifest opens {@code java.lang} and {@code java.util} for it.
 */
final class Environment {
    private Environment() {
    }

    static String get(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null ? otherwise : value;
    }

    /** Replace all variables. */
    static void replace(Map<String, String> variables) throws ReflectiveOperationException {
        Map<String, String> map = writable();
        map.clear();
        map.putAll(variables);
    }

    /** Set one variable, or remove it where {@code value} is null. Does nothing on a Java that does not let it. */
    static void set(String name, String value) {
        try {
            if (value == null) {
                writable().remove(name);
            } else {
                writable().put(name, value);
            }
        } catch (ReflectiveOperationException | RuntimeException refused) {
            return; // the system property is what AWS's own runtime sets
        }
    }

    @SuppressWarnings("unchecked")
    private static Map<String, String> writable() throws ReflectiveOperationException {
        Field inner = Collections.unmodifiableMap(Collections.emptyMap()).getClass().getDeclaredField("m");
        inner.setAccessible(true);
        return (Map<String, String>) inner.get(System.getenv());
    }
}
