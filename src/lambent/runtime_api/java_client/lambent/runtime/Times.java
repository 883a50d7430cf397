package lambent.runtime;

import java.lang.reflect.Method;
import java.math.BigDecimal;
import java.time.DateTimeException;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.time.Year;
import java.time.YearMonth;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.Date;

/**
 * Dates and times in JSON, as AWS's serialization has them: moments and durations are decimal seconds, local dates and times are arrays of
 * numbers, the rest is text; read, they may also be ISO 8601. In a class of its own, since loading {@code java.time} takes time itself.
 */
final class Times {
    private Times() {
    }

    static Object from(Object value, Class<?> type) throws JsonException {
        try {
            if (value instanceof Number && (type == Instant.class || type == OffsetDateTime.class || type == ZonedDateTime.class)) {
                return atZone(instant((Number) value), type);
            }
            if (value instanceof Number && type == Duration.class) {
                Instant span = instant((Number) value);
                return Duration.ofSeconds(span.getEpochSecond(), span.getNano());
            }
            if (value instanceof Number && type == Year.class) {
                return Year.of(((Number) value).intValue());
            }
            if (value instanceof Number && type == LocalDate.class) {
                return LocalDate.ofEpochDay(((Number) value).longValue());
            }
            if (!(value instanceof String)) {
                throw Binder.unfit(Binder.kind(value), type);
            }
            String text = ((String) value).trim();
            return text.isEmpty() ? null : parsed(text, type);
        } catch (DateTimeException malformed) {
            throw new JsonException("Cannot deserialize value of type `" + type.getName() + "` from String \"" + value + "\": "
                    + malformed.getMessage(), malformed);
        }
    }

    /** A date from ISO 8601; without a time zone it is UTC. */
    static Date date(String text) throws JsonException {
        String iso = text.trim();
        try {
            if (iso.indexOf('T') < 0) {
                return Date.from(LocalDate.parse(iso).atStartOfDay(ZoneOffset.UTC).toInstant());
            }
            int time = iso.indexOf('T');
            int sign = Math.max(iso.indexOf('+', time), iso.indexOf('-', time));
            if (iso.endsWith("Z")) {
                return Date.from(Instant.parse(iso));
            }
            if (sign < 0) {
                return Date.from(LocalDateTime.parse(iso).toInstant(ZoneOffset.UTC));
            }
            if (iso.length() - sign == 5) {
                iso = iso.substring(0, sign + 3) + ":" + iso.substring(sign + 3);
            }
            return Date.from(OffsetDateTime.parse(iso).toInstant());
        } catch (DateTimeException malformed) {
            throw new JsonException("Cannot deserialize value of type `java.util.Date` from String \"" + text + "\": not a valid"
                    + " representation", malformed);
        }
    }

    /** Writes what {@code from} reads. */
    static void write(Object time, JsonWriter to) throws JsonException {
        if (time instanceof Instant) {
            to.number(seconds(((Instant) time).getEpochSecond(), ((Instant) time).getNano()));
        } else if (time instanceof OffsetDateTime) {
            write(((OffsetDateTime) time).toInstant(), to);
        } else if (time instanceof ZonedDateTime) {
            write(((ZonedDateTime) time).toInstant(), to);
        } else if (time instanceof Duration) {
            to.number(seconds(((Duration) time).getSeconds(), ((Duration) time).getNano()));
        } else if (time instanceof LocalDate) {
            LocalDate date = (LocalDate) time;
            to.value(new int[] {date.getYear(), date.getMonthValue(), date.getDayOfMonth()});
        } else if (time instanceof LocalTime) {
            to.value(numbers(new int[0], (LocalTime) time));
        } else if (time instanceof LocalDateTime) {
            LocalDate date = ((LocalDateTime) time).toLocalDate();
            int[] days = {date.getYear(), date.getMonthValue(), date.getDayOfMonth()};
            to.value(numbers(days, ((LocalDateTime) time).toLocalTime()));
        } else if (time instanceof Year) {
            to.value(((Year) time).getValue());
        } else if (time instanceof YearMonth) {
            to.value(new int[] {((YearMonth) time).getYear(), ((YearMonth) time).getMonthValue()});
        } else {
            to.value(time.toString());
        }
    }

    private static int[] numbers(int[] first, LocalTime time) {
        int more = time.getNano() != 0 ? 4 : time.getSecond() != 0 ? 3 : 2;
        int[] all = java.util.Arrays.copyOf(first, first.length + more);
        int[] parts = {time.getHour(), time.getMinute(), time.getSecond(), time.getNano()};
        System.arraycopy(parts, 0, all, first.length, more);
        return all;
    }

    private static String seconds(long seconds, int nanos) {
        return BigDecimal.valueOf(seconds).add(BigDecimal.valueOf(nanos, 9)).toPlainString();
    }

    private static Instant instant(Number value) {
        BigDecimal seconds = value instanceof JsonReader.Decimal ? ((JsonReader.Decimal) value).exact() : new BigDecimal(value.toString());
        long whole = seconds.setScale(0, java.math.RoundingMode.FLOOR).longValue();
        return Instant.ofEpochSecond(whole, seconds.subtract(BigDecimal.valueOf(whole)).movePointRight(9).longValue());
    }

    private static Object atZone(Instant instant, Class<?> type) {
        if (type == Instant.class) {
            return instant;
        }
        return type == OffsetDateTime.class ? (Object) instant.atOffset(ZoneOffset.UTC) : instant.atZone(ZoneOffset.UTC);
    }

    private static Object parsed(String text, Class<?> type) throws JsonException {
        if (type == Instant.class && !text.endsWith("Z")) {
            return OffsetDateTime.parse(text).toInstant();
        }
        if (type == LocalDate.class && text.indexOf('T') > 0) {
            return LocalDate.parse(text.substring(0, text.indexOf('T')));
        }
        String factory = type.getName().equals("java.time.ZoneId") || type.getName().equals("java.time.ZoneOffset") ? "of" : "parse";
        Class<?> takes = type.getName().startsWith("java.time.") && factory.equals("parse") ? CharSequence.class : String.class;
        try {
            Method method = type.getMethod(factory, takes);
            return method.invoke(null, text);
        } catch (java.lang.reflect.InvocationTargetException thrown) {
            throw new JsonException("Cannot deserialize value of type `" + type.getName() + "` from String \"" + text + "\": "
                    + thrown.getCause().getMessage(), thrown.getCause());
        } catch (ReflectiveOperationException none) {
            throw Binder.unfit(Binder.kind(text), type);
        }
    }
}
