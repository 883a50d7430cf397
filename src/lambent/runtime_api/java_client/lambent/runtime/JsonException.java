package lambent.runtime;

import java.io.IOException;

/** JSON that cannot be read, does not fit the handler's type, or cannot be written. */
final class JsonException extends IOException {
    private static final long serialVersionUID = 1L;

    JsonException(String text) {
        super(text);
    }

    JsonException(String text, Throwable cause) {
        super(text, cause);
    }
}
