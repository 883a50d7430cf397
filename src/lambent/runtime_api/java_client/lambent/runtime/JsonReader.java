package lambent.runtime;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * JSON to plain values: maps in order, lists, strings, booleans, null, and the smallest of Integer, Long and BigInteger that holds a whole
 * number. Other numbers are {@link Decimal}s, which remember their text, until {@link #plain} makes doubles of them.
 *
 * <p>Takes what AWS's reader takes beyond the standard: single quotes, names without quotes, control characters in strings, a backslash
 * before any character, leading zeros, and NaN and Infinity.
 */
final class JsonReader {
    static final int DEPTH_MOST = 1000;

    private final String text;
    private int at;
    private int depth;

    private JsonReader(String text) {
        this.text = text;
    }

    static Object read(byte[] json) throws JsonException {
        return read(new String(json, StandardCharsets.UTF_8));
    }

    static Object read(String json) throws JsonException {
        JsonReader reader = new JsonReader(json);
        reader.space();
        if (reader.at == json.length()) {
            throw new JsonException("No content to map due to end-of-input");
        }
        return reader.value();
    }

    /** The value with doubles in the place of {@link Decimal}s; lists and maps are changed in place. */
    @SuppressWarnings("unchecked")
    static Object plain(Object value) {
        if (value instanceof Decimal) {
            return ((Decimal) value).doubleValue();
        }
        if (value instanceof Map) {
            for (Map.Entry<String, Object> entry : ((Map<String, Object>) value).entrySet()) {
                Object inner = entry.getValue();
                if (inner instanceof Decimal || inner instanceof Map || inner instanceof List) {
                    entry.setValue(plain(inner));
                }
            }
        } else if (value instanceof List) {
            List<Object> list = (List<Object>) value;
            for (int i = 0; i < list.size(); i++) {
                list.set(i, plain(list.get(i)));
            }
        }
        return value;
    }

    /** A number with a fraction or an exponent, as it was written. */
    static final class Decimal extends Number {
        private static final long serialVersionUID = 1L;
        private final String text;

        Decimal(String text) {
            this.text = text;
        }

        BigDecimal exact() {
            return new BigDecimal(text);
        }

        @Override
        public int intValue() {
            return (int) doubleValue();
        }

        @Override
        public long longValue() {
            return (long) doubleValue();
        }

        @Override
        public float floatValue() {
            return Float.parseFloat(text);
        }

        @Override
        public double doubleValue() {
            return Double.parseDouble(text);
        }

        @Override
        public String toString() {
            return text;
        }
    }

    private Object value() throws JsonException {
        switch (peek()) {
            case '{':
                return object();
            case '[':
                return array();
            case '"':
            case '\'':
                return string();
            default:
                return word();
        }
    }

    private Map<String, Object> object() throws JsonException {
        deeper();
        Map<String, Object> object = new LinkedHashMap<String, Object>();
        at++;
        if (skipTo('}')) {
            return object;
        }
        while (true) {
            String name = peek() == '"' || peek() == '\'' ? string() : bareName();
            space();
            expect(':');
            space();
            object.put(name, value());
            space();
            if (peek() != ',') {
                expect('}');
                depth--;
                return object;
            }
            at++;
            space();
        }
    }

    private List<Object> array() throws JsonException {
        deeper();
        List<Object> array = new ArrayList<Object>();
        at++;
        if (skipTo(']')) {
            return array;
        }
        while (true) {
            array.add(value());
            space();
            if (peek() != ',') {
                expect(']');
                depth--;
                return array;
            }
            at++;
            space();
        }
    }

    private boolean skipTo(char end) throws JsonException {
        space();
        if (peek() != end) {
            return false;
        }
        at++;
        depth--;
        return true;
    }

    private String string() throws JsonException {
        char quote = text.charAt(at++);
        int from = at;
        while (true) {
            char each = peek();
            if (each == quote) {
                return text.substring(from, at++);
            }
            if (each == '\\') {
                return escaped(from, quote);
            }
            at++;
        }
    }

    private String escaped(int from, char quote) throws JsonException {
        StringBuilder built = new StringBuilder(text.substring(from, at));
        while (true) {
            char each = peek();
            at++;
            if (each == quote) {
                return built.toString();
            }
            if (each != '\\') {
                built.append(each);
                continue;
            }
            char escape = peek();
            at++;
            built.append(escape == 'u' ? unicode() : unescaped(escape));
        }
    }

    private static char unescaped(char escape) {
        switch (escape) {
            case 'b':
                return '\b';
            case 'f':
                return '\f';
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 't':
                return '\t';
            default:
                return escape;
        }
    }

    private char unicode() throws JsonException {
        int code = 0;
        for (int i = 0; i < 4; i++) {
            int digit = Character.digit(peek(), 16);
            if (digit < 0) {
                throw unexpected("expected a hex-digit for character escape sequence");
            }
            code = code << 4 | digit;
            at++;
        }
        return (char) code;
    }

    private String bareName() throws JsonException {
        int from = at;
        while (Character.isJavaIdentifierPart(peek()) || peek() == '-') {
            at++;
        }
        if (at == from) {
            throw unexpected("was expecting double-quote to start field name");
        }
        return text.substring(from, at);
    }

    private Object word() throws JsonException {
        int from = at;
        while (at < text.length() && (Character.isLetterOrDigit(text.charAt(at)) || "+-.".indexOf(text.charAt(at)) >= 0)) {
            at++;
        }
        String word = text.substring(from, at);
        switch (word) {
            case "true":
                return Boolean.TRUE;
            case "false":
                return Boolean.FALSE;
            case "null":
                return null;
            case "NaN":
            case "Infinity":
            case "-Infinity":
                return Double.valueOf(word);
            default:
                return number(word, from);
        }
    }

    private Object number(String word, int from) throws JsonException {
        boolean whole = !word.isEmpty();
        boolean digits = false;
        for (int i = 0; i < word.length(); i++) {
            char each = word.charAt(i);
            boolean digit = each >= '0' && each <= '9';
            digits |= digit;
            whole &= digit || i == 0 && each == '-';
            if (!digit && ".eE+-".indexOf(each) < 0) {
                digits = false;
                break;
            }
        }
        try {
            if (digits && word.charAt(0) != '+' && word.charAt(0) != '.') {
                return whole ? integer(word) : decimal(word);
            }
        } catch (NumberFormatException malformed) {
            at = from; // told of below
        }
        at = from;
        throw unexpected("was expecting (JSON String, Number, Array, Object or token 'null', 'true' or 'false')");
    }

    private static Number integer(String word) {
        if (word.length() < 10) {
            return Integer.parseInt(word);
        }
        if (word.length() < 19) {
            long value = Long.parseLong(word);
            return value == (int) value ? (Number) (int) value : (Number) value;
        }
        BigInteger value = new BigInteger(word);
        return value.bitLength() < 64 ? (Number) value.longValue() : value;
    }

    private static Number decimal(String word) {
        Double.parseDouble(word);
        return new Decimal(word);
    }

    private void deeper() throws JsonException {
        if (++depth > DEPTH_MOST) {
            throw new JsonException("Document nesting depth (" + depth + ") exceeds the maximum allowed (" + DEPTH_MOST + ")");
        }
    }

    private void space() {
        while (at < text.length() && text.charAt(at) <= ' ') {
            at++;
        }
    }

    private char peek() throws JsonException {
        if (at >= text.length()) {
            throw new JsonException("Unexpected end-of-input at character " + at);
        }
        return text.charAt(at);
    }

    private void expect(char wanted) throws JsonException {
        if (peek() != wanted) {
            throw unexpected("was expecting '" + wanted + "'");
        }
        at++;
    }

    private JsonException unexpected(String wanted) {
        String found = at < text.length() ? "Unexpected character ('" + text.charAt(at) + "'): " : "Unexpected end-of-input: ";
        return new JsonException(found + wanted + " at character " + at);
    }
}
