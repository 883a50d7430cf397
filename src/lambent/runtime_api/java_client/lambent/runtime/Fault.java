package lambent.runtime;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.Set;

/**
 * What is wrong with the function itself: no such class, no fitting method, a constructor that throws.
 *
 * <p>Most of these are told to every invocation, as on AWS. A fatal one (the class or its constructor threw) ends the environment as an
 * init error. Neither shows a stack trace in its payload.
 */
final class Fault extends RuntimeException {
    private static final long serialVersionUID = 1L;
    private static final String OURS = "lambent.runtime.";

    final String text;
    final String type; // null where there is no exception behind it
    final String trace;
    final boolean fatal;

    Fault(String text) {
        this(text, null, null, false);
    }

    Fault(String text, String type, String trace, boolean fatal) {
        super(text);
        this.text = text;
        this.type = type;
        this.trace = trace;
        this.fatal = fatal;
    }

    static Fault of(Throwable thrown, boolean fatal) {
        return new Fault(message(thrown), thrown.getClass().getName(), trace(thrown), fatal);
    }

    static Fault classNotFound(Throwable thrown, String name) {
        return new Fault("Class not found: " + name, thrown.getClass().getName(), trace(thrown), false);
    }

    static Fault loading(Throwable thrown, String name, boolean fatal) {
        String detail = thrown.getMessage() == null ? "" : ": " + thrown.getMessage();
        return new Fault("Error loading class " + name + detail, thrown.getClass().getName(), trace(thrown), fatal);
    }

    /** What is logged, in AWS's form: message, type, trace. */
    String report() {
        if (type == null && trace == null) {
            return text + "\n";
        }
        return text + ": " + (type == null ? "" : type) + "\n" + (trace == null ? "" : trace) + "\n";
    }

    static String message(Throwable thrown) {
        String said = thrown.getLocalizedMessage();
        return said == null ? thrown.getClass().getName() : said;
    }

    static String trace(Throwable thrown) {
        StringWriter text = new StringWriter();
        withoutOurs(thrown).printStackTrace(new PrintWriter(text, true));
        return text.toString();
    }

    /** Cut every stack trace below the function's own frames, of causes and suppressed exceptions too. Gives back {@code thrown}. */
    static <T extends Throwable> T withoutOurs(T thrown) {
        cut(thrown, Collections.newSetFromMap(new IdentityHashMap<Throwable, Boolean>()));
        return thrown;
    }

    private static void cut(Throwable thrown, Set<Throwable> seen) {
        if (thrown == null || !seen.add(thrown)) {
            return;
        }
        StackTraceElement[] frames = thrown.getStackTrace();
        for (int i = 0; i < frames.length; i++) {
            if (frames[i].getClassName().startsWith(OURS)) {
                StackTraceElement[] kept = new StackTraceElement[i];
                System.arraycopy(frames, 0, kept, 0, i);
                thrown.setStackTrace(kept);
                break;
            }
        }
        cut(thrown.getCause(), seen);
        for (Throwable suppressed : thrown.getSuppressed()) {
            cut(suppressed, seen);
        }
    }
}
