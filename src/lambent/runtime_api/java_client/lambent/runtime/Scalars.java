package lambent.runtime;

import java.io.File;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.net.URI;
import java.net.URL;
import java.nio.ByteBuffer;
import java.nio.charset.Charset;
import java.util.Calendar;
import java.util.Currency;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.TimeZone;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.regex.Pattern;

/** Strings, numbers, dates and all else that is one value in JSON, as the type that a handler or a property wants. */
final class Scalars {
    private enum Kind {
        STRING, BOOLEAN, CHAR, BYTE, SHORT, INT, LONG, FLOAT, DOUBLE, NUMBER, DECIMAL, INTEGER, DATE, CALENDAR, BYTES, CHARS, BUFFER,
        UUID, URI, URL, FILE, LOCALE, CURRENCY, CHARSET, PATTERN, ZONE, CLASS, ATOMIC_BOOLEAN, ATOMIC_INT, ATOMIC_LONG,
        OPTIONAL_INT, OPTIONAL_LONG, OPTIONAL_DOUBLE, BUILDER
    }

    private static final Map<Class<?>, Kind> KINDS = new HashMap<Class<?>, Kind>();

    static {
        Object[] table = {
            String.class, Kind.STRING, CharSequence.class, Kind.STRING, boolean.class, Kind.BOOLEAN, Boolean.class, Kind.BOOLEAN,
            char.class, Kind.CHAR, Character.class, Kind.CHAR, byte.class, Kind.BYTE, Byte.class, Kind.BYTE, short.class, Kind.SHORT,
            Short.class, Kind.SHORT, int.class, Kind.INT, Integer.class, Kind.INT, long.class, Kind.LONG, Long.class, Kind.LONG,
            float.class, Kind.FLOAT, Float.class, Kind.FLOAT, double.class, Kind.DOUBLE, Double.class, Kind.DOUBLE,
            Number.class, Kind.NUMBER, BigDecimal.class, Kind.DECIMAL, BigInteger.class, Kind.INTEGER, Date.class, Kind.DATE,
            Calendar.class, Kind.CALENDAR, byte[].class, Kind.BYTES, char[].class, Kind.CHARS, ByteBuffer.class, Kind.BUFFER,
            UUID.class, Kind.UUID, URI.class, Kind.URI, URL.class, Kind.URL, File.class, Kind.FILE, Locale.class, Kind.LOCALE,
            Currency.class, Kind.CURRENCY, Charset.class, Kind.CHARSET, Pattern.class, Kind.PATTERN, TimeZone.class, Kind.ZONE,
            Class.class, Kind.CLASS, AtomicBoolean.class, Kind.ATOMIC_BOOLEAN, AtomicInteger.class, Kind.ATOMIC_INT,
            AtomicLong.class, Kind.ATOMIC_LONG, OptionalInt.class, Kind.OPTIONAL_INT, OptionalLong.class, Kind.OPTIONAL_LONG,
            OptionalDouble.class, Kind.OPTIONAL_DOUBLE, StringBuilder.class, Kind.BUILDER,
        };
        for (int i = 0; i < table.length; i += 2) {
            KINDS.put((Class<?>) table[i], (Kind) table[i + 1]);
        }
    }

    private Scalars() {
    }

    static boolean isScalar(Class<?> type) {
        return KINDS.containsKey(type) || type.isEnum() || isTime(type);
    }

    private static boolean isTime(Class<?> type) {
        return type.getName().startsWith("java.time.") || type.getName().equals("org.joda.time.DateTime");
    }

    /** {@code value}, neither null nor a list, as a {@code type}. */
    static Object from(Object value, Class<?> type, boolean dateIsSeconds) throws JsonException {
        if (value instanceof Map || value instanceof List) {
            throw Binder.unfit(Binder.kind(value), type);
        }
        if (type.isEnum()) {
            return constant(value, type);
        }
        if (isTime(type)) {
            return Times.from(value, type);
        }
        Kind kind = KINDS.get(type);
        if (kind == null) {
            throw Binder.unfit(Binder.kind(value), type);
        }
        try {
            String text = value instanceof String ? ((String) value).trim() : null;
            if (kind.ordinal() <= Kind.INTEGER.ordinal() && kind != Kind.STRING) {
                return text != null && text.isEmpty() && kind != Kind.CHAR ? zero(type) : basic(value, kind, type);
            }
            return kind == Kind.DATE ? date(value, dateIsSeconds) : other(value, kind, type);
        } catch (IllegalArgumentException malformed) {
            throw Binder.unfit(Binder.kind(value) + ": not a valid `" + type.getName() + "` value", type);
        }
    }

    private static Object zero(Class<?> type) throws JsonException {
        return type.isPrimitive() ? Binder.bind(null, type) : null;
    }

    private static Object constant(Object value, Class<?> type) throws JsonException {
        Object[] constants = type.getEnumConstants();
        if (value instanceof String) {
            for (Object each : constants) {
                if (((Enum<?>) each).name().equals(((String) value).trim())) {
                    return each;
                }
            }
            return null;
        }
        if (value instanceof Integer) {
            int index = (Integer) value;
            return index >= 0 && index < constants.length ? constants[index] : null;
        }
        throw Binder.unfit(Binder.kind(value), type);
    }

    private static Object basic(Object value, Kind kind, Class<?> type) throws JsonException {
        if (kind == Kind.BOOLEAN) {
            return truth(value);
        }
        if (kind == Kind.CHAR) {
            if (value instanceof Integer) {
                return (char) (int) (Integer) value;
            }
            String text = String.valueOf(value);
            if (!(value instanceof String) || text.length() != 1) {
                throw Binder.unfit(Binder.kind(value), type);
            }
            return text.charAt(0);
        }
        if (value instanceof Boolean) {
            throw Binder.unfit(Binder.kind(value), type);
        }
        Number number = value instanceof String ? number(((String) value).trim()) : (Number) value;
        switch (kind) {
            case BYTE:
                return (byte) within(number, Byte.MIN_VALUE, 255, type);
            case SHORT:
                return (short) within(number, Short.MIN_VALUE, Short.MAX_VALUE, type);
            case INT:
                return (int) within(number, Integer.MIN_VALUE, Integer.MAX_VALUE, type);
            case LONG:
                return within(number, Long.MIN_VALUE, Long.MAX_VALUE, type);
            case FLOAT:
                return number.floatValue();
            case DOUBLE:
                return number.doubleValue();
            case DECIMAL:
                return decimal(number);
            case INTEGER:
                return decimal(number).toBigInteger();
            default:
                return number instanceof JsonReader.Decimal ? (Number) number.doubleValue() : number;
        }
    }

    private static Boolean truth(Object value) {
        if (value instanceof Boolean) {
            return (Boolean) value;
        }
        if (value instanceof Integer) {
            return (Integer) value != 0;
        }
        String text = String.valueOf(value).trim();
        if (text.equals("true") || text.equals("True") || text.equals("TRUE")) {
            return Boolean.TRUE;
        }
        if (text.equals("false") || text.equals("False") || text.equals("FALSE")) {
            return Boolean.FALSE;
        }
        throw new IllegalArgumentException(text);
    }

    private static Number number(String text) {
        boolean whole = text.indexOf('.') < 0 && text.indexOf('e') < 0 && text.indexOf('E') < 0;
        if (text.equals("NaN") || text.endsWith("Infinity")) {
            return Double.valueOf(text);
        }
        if (whole) {
            return new BigInteger(text);
        }
        Double.parseDouble(text);
        return new JsonReader.Decimal(text);
    }

    private static BigDecimal decimal(Number number) {
        return number instanceof JsonReader.Decimal ? ((JsonReader.Decimal) number).exact() : new BigDecimal(number.toString());
    }

    private static long within(Number number, long least, long most, Class<?> type) throws JsonException {
        BigInteger value = number instanceof Integer || number instanceof Long ? null : decimal(number).toBigInteger();
        if (value != null && value.bitLength() > 63) {
            throw outOfRange(number, type);
        }
        long exact = value == null ? number.longValue() : value.longValue();
        if (exact < least || exact > most) {
            throw outOfRange(number, type);
        }
        return exact;
    }

    private static JsonException outOfRange(Number number, Class<?> type) {
        return new JsonException("Numeric value (" + number + ") out of range of " + type.getName());
    }

    private static Date date(Object value, boolean isSeconds) throws JsonException {
        if (isSeconds) {
            double seconds = value instanceof Number ? ((Number) value).doubleValue() : Double.parseDouble(String.valueOf(value));
            return seconds == 0 ? null : new Date((long) (seconds * 1000));
        }
        if (value instanceof String) {
            return ((String) value).trim().isEmpty() ? null : Times.date((String) value);
        }
        return new Date(within((Number) value, Long.MIN_VALUE, Long.MAX_VALUE, Date.class));
    }

    private static Object other(Object value, Kind kind, Class<?> type) throws JsonException {
        String text = String.valueOf(value);
        switch (kind) {
            case STRING:
                return text;
            case BUILDER:
                return new StringBuilder(text);
            case CHARS:
                return text.toCharArray();
            case BYTES:
                return Binder.base64(text);
            case BUFFER:
                return ByteBuffer.wrap(Binder.base64(text));
            case CALENDAR:
                Calendar calendar = Calendar.getInstance(TimeZone.getTimeZone("UTC"));
                calendar.setTime(date(value, false));
                return calendar;
            case ATOMIC_BOOLEAN:
                return new AtomicBoolean(truth(value));
            case ATOMIC_INT:
                return new AtomicInteger((Integer) from(value, int.class, false));
            case ATOMIC_LONG:
                return new AtomicLong((Long) from(value, long.class, false));
            case OPTIONAL_INT:
                return OptionalInt.of((Integer) from(value, int.class, false));
            case OPTIONAL_LONG:
                return OptionalLong.of((Long) from(value, long.class, false));
            case OPTIONAL_DOUBLE:
                return OptionalDouble.of((Double) from(value, double.class, false));
            default:
                return text.isEmpty() ? null : named(text, kind, type);
        }
    }

    private static Object named(String text, Kind kind, Class<?> type) throws JsonException {
        try {
            switch (kind) {
                case UUID:
                    return UUID.fromString(text);
                case URI:
                    return new URI(text);
                case URL:
                    return new URL(text);
                case FILE:
                    return new File(text);
                case LOCALE:
                    return Locale.forLanguageTag(text.replace('_', '-'));
                case CURRENCY:
                    return Currency.getInstance(text);
                case CHARSET:
                    return Charset.forName(text);
                case PATTERN:
                    return Pattern.compile(text);
                case ZONE:
                    return TimeZone.getTimeZone(text);
                default:
                    return Class.forName(text, true, Thread.currentThread().getContextClassLoader());
            }
        } catch (Exception malformed) {
            throw new JsonException("Cannot deserialize value of type `" + type.getName() + "` from String \"" + text + "\": "
                    + malformed.getMessage(), malformed);
        }
    }
}
