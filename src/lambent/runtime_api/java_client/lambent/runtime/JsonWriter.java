package lambent.runtime;

import java.lang.reflect.Array;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Type;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Calendar;
import java.util.Date;
import java.util.Iterator;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.concurrent.atomic.AtomicReference;

/**
 * Values to JSON, with the habits of AWS's serialization: properties and map entries that are null are left out, enums are their names,
 * dates are milliseconds (seconds in AWS's event classes), bytes are base 64, numbers that JSON has no words for are strings. Half a
 * character is refused. Our own documents ({@link #plain}) keep their nulls and never fail.
 */
final class JsonWriter {
    private static final char[] HEX = "0123456789ABCDEF".toCharArray();

    private final StringBuilder out = new StringBuilder(256);
    private final boolean ofFunction;
    private final boolean dateIsSeconds;
    private int depth;

    private JsonWriter(boolean ofFunction, boolean dateIsSeconds) {
        this.ofFunction = ofFunction;
        this.dateIsSeconds = dateIsSeconds;
    }

    /** {@code value}, which a handler returned that promises {@code type}. Nothing that the type does not have is written of a bean. */
    static byte[] write(Object value, Type type) throws JsonException {
        Class<?> raw = Types.raw(type);
        JsonWriter writer = new JsonWriter(true, EventModels.isModel(raw));
        if (value != null && raw.isInstance(value) && isBean(raw) && isBean(value.getClass())) {
            writer.bean(value, Beans.of(raw));
        } else {
            writer.value(value);
        }
        return writer.out.toString().getBytes(StandardCharsets.UTF_8);
    }

    /** Maps, lists, strings and numbers as they are, nulls included. */
    static byte[] plain(Object value) {
        JsonWriter writer = new JsonWriter(false, false);
        try {
            writer.value(value);
        } catch (JsonException impossible) {
            throw new IllegalStateException(impossible);
        }
        return writer.out.toString().getBytes(StandardCharsets.UTF_8);
    }

    private static boolean isBean(Class<?> type) {
        return type != Object.class && !type.isArray() && !Scalars.isScalar(type) && !Map.class.isAssignableFrom(type)
                && !Iterable.class.isAssignableFrom(type) && !Iterator.class.isAssignableFrom(type)
                && !CharSequence.class.isAssignableFrom(type) && !Number.class.isAssignableFrom(type)
                && !type.getName().startsWith("java.");
    }

    void number(String text) {
        out.append(text);
    }

    void value(Object value) throws JsonException {
        if (value == null) {
            out.append("null");
        } else if (value instanceof String) {
            string((String) value);
        } else if (value instanceof Number) {
            number((Number) value);
        } else if (value instanceof Boolean) {
            out.append(((Boolean) value).booleanValue());
        } else if (value instanceof Map) {
            map((Map<?, ?>) value);
        } else if (value instanceof Iterable && !(value instanceof java.nio.file.Path)) {
            array(((Iterable<?>) value).iterator());
        } else if (value instanceof Enum) {
            string(((Enum<?>) value).name());
        } else if (value.getClass().isArray()) {
            array(value);
        } else {
            other(value);
        }
    }

    private void other(Object value) throws JsonException {
        String name = value.getClass().getName();
        if (value instanceof Date) {
            long millis = ((Date) value).getTime();
            out.append(dateIsSeconds ? String.valueOf(millis / 1000.0) : String.valueOf(millis));
        } else if (value instanceof Calendar) {
            out.append(((Calendar) value).getTimeInMillis());
        } else if (value instanceof CharSequence || value instanceof Character) {
            string(value.toString());
        } else if (name.startsWith("java.time.")) {
            Times.write(value, this);
        } else if (value instanceof Iterator) {
            array((Iterator<?>) value);
        } else if (value instanceof ByteBuffer) {
            ByteBuffer copy = ((ByteBuffer) value).duplicate();
            byte[] bytes = new byte[copy.remaining()];
            copy.get(bytes);
            string(Base64.getEncoder().encodeToString(bytes));
        } else if (value instanceof Optional) {
            value(((Optional<?>) value).orElse(null));
        } else if (name.startsWith("java.") || name.startsWith("sun.") || name.equals("org.joda.time.DateTime")) {
            platform(value);
        } else {
            bean(value, Beans.of(value.getClass()));
        }
    }

    /** What the standard library has besides; mostly things that are their text. */
    private void platform(Object value) throws JsonException {
        if (value instanceof OptionalInt) {
            out.append(((OptionalInt) value).isPresent() ? String.valueOf(((OptionalInt) value).getAsInt()) : "null");
        } else if (value instanceof OptionalLong) {
            out.append(((OptionalLong) value).isPresent() ? String.valueOf(((OptionalLong) value).getAsLong()) : "null");
        } else if (value instanceof OptionalDouble) {
            value(((OptionalDouble) value).isPresent() ? ((OptionalDouble) value).getAsDouble() : null);
        } else if (value instanceof AtomicReference) {
            value(((AtomicReference<?>) value).get());
        } else if (value instanceof java.util.concurrent.atomic.AtomicBoolean) {
            out.append(value);
        } else if (value instanceof Class) {
            string(((Class<?>) value).getName());
        } else if (value instanceof java.io.File) {
            string(((java.io.File) value).getAbsolutePath());
        } else if (value instanceof java.nio.file.Path) {
            string(((java.nio.file.Path) value).toUri().toString());
        } else if (value instanceof java.util.TimeZone) {
            string(((java.util.TimeZone) value).getID());
        } else if (value instanceof java.net.InetAddress) {
            string(((java.net.InetAddress) value).getHostAddress());
        } else if (value instanceof Map.Entry) {
            map(java.util.Collections.singletonMap(((Map.Entry<?, ?>) value).getKey(), ((Map.Entry<?, ?>) value).getValue()));
        } else if (value instanceof Throwable || value instanceof StackTraceElement) {
            bean(value, Beans.of(value.getClass()));
        } else if (value.getClass() == Object.class) {
            out.append("{}");
        } else {
            string(value.toString());
        }
    }

    private void bean(Object bean, Beans beans) throws JsonException {
        deeper();
        out.append('{');
        boolean first = true;
        for (Beans.Property property : beans.properties) {
            if (property.getter == null && property.field == null) {
                continue;
            }
            Object value = get(bean, property);
            if (value == null) {
                continue;
            }
            if (value == bean) {
                throw new JsonException("Direct self-reference leading to cycle (through reference chain: " + beans.type.getName()
                        + "[\"" + property.name + "\"])");
            }
            first = comma(first);
            string(property.name);
            out.append(':');
            value(value);
        }
        out.append('}');
        depth--;
    }

    private static Object get(Object bean, Beans.Property property) throws JsonException {
        try {
            return property.getter != null ? property.getter.invoke(bean) : property.field.get(bean);
        } catch (InvocationTargetException thrown) {
            Throwable cause = thrown.getCause();
            throw new JsonException(cause.getMessage() + " (through reference chain: " + bean.getClass().getName() + "[\"" + property.name
                    + "\"])", cause);
        } catch (IllegalAccessException closed) {
            throw new JsonException("Cannot read property " + property.name + " of " + bean.getClass().getName(), closed);
        }
    }

    private void map(Map<?, ?> map) throws JsonException {
        deeper();
        out.append('{');
        boolean first = true;
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            if (entry.getValue() == null && ofFunction) {
                continue;
            }
            Object key = entry.getKey();
            if (key == null) {
                throw new JsonException("Null key for a Map not allowed in JSON (use a converting NullKeySerializer?)");
            }
            first = comma(first);
            string(key instanceof Enum ? ((Enum<?>) key).name() : key.toString());
            out.append(':');
            value(entry.getValue());
        }
        out.append('}');
        depth--;
    }

    private void array(Iterator<?> items) throws JsonException {
        deeper();
        out.append('[');
        boolean first = true;
        while (items.hasNext()) {
            first = comma(first);
            value(items.next());
        }
        out.append(']');
        depth--;
    }

    private void array(Object array) throws JsonException {
        if (array instanceof byte[]) {
            string(Base64.getEncoder().encodeToString((byte[]) array));
            return;
        }
        if (array instanceof char[]) {
            string(new String((char[]) array));
            return;
        }
        deeper();
        out.append('[');
        for (int i = 0, size = Array.getLength(array); i < size; i++) {
            comma(i == 0);
            value(Array.get(array, i));
        }
        out.append(']');
        depth--;
    }

    private boolean comma(boolean first) {
        if (!first) {
            out.append(',');
        }
        return false;
    }

    private void number(Number number) {
        double value = number instanceof Double || number instanceof Float ? number.doubleValue() : 0;
        if (Double.isNaN(value) || Double.isInfinite(value)) {
            out.append('"').append(value).append('"');
        } else {
            out.append(number);
        }
    }

    private void deeper() throws JsonException {
        if (++depth > JsonReader.DEPTH_MOST) {
            throw new JsonException("Document nesting depth (" + depth + ") exceeds the maximum allowed (" + JsonReader.DEPTH_MOST + ")");
        }
    }

    private void string(String text) throws JsonException {
        out.append('"');
        int from = 0;
        int length = text.length();
        for (int i = 0; i < length; i++) {
            char each = text.charAt(i);
            if (each >= ' ' && each != '"' && each != '\\' && (each < Character.MIN_SURROGATE || each > Character.MAX_SURROGATE)) {
                continue;
            }
            if (each >= Character.MIN_SURROGATE && each <= Character.MAX_SURROGATE) {
                if (Character.isHighSurrogate(each) && i + 1 < length && Character.isLowSurrogate(text.charAt(i + 1))) {
                    i++;
                    continue;
                }
                if (ofFunction) {
                    throw new JsonException("Incomplete surrogate pair: 0x" + Integer.toHexString(each));
                }
                out.append(text, from, i).append('?');
                from = i + 1;
                continue;
            }
            out.append(text, from, i);
            escape(each);
            from = i + 1;
        }
        out.append(text, from, length).append('"');
    }

    private void escape(char each) {
        int known = "\"\\\b\f\n\r\t".indexOf(each);
        if (known >= 0) {
            out.append('\\').append("\"\\bfnrt".charAt(known));
        } else {
            out.append("\\u00").append(HEX[each >> 4]).append(HEX[each & 15]);
        }
    }
}
