package lambent.runtime;

import java.util.ArrayList;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Error payloads (contract 02, 2.1) and what X-Ray is told of an exception. */
final class Payloads {
    private static final int XRAY_MOST = 1_048_576;

    private Payloads() {
    }

    static byte[] of(Fault fault) {
        Map<String, Object> payload = new LinkedHashMap<String, Object>();
        payload.put("errorMessage", fault.text);
        if (fault.type != null) {
            payload.put("errorType", fault.type);
        }
        return JsonWriter.plain(payload);
    }

    static byte[] of(Throwable thrown) {
        return JsonWriter.plain(tree(thrown, Collections.newSetFromMap(new IdentityHashMap<Throwable, Boolean>())));
    }

    /** The cause document for X-Ray; empty where it would be too large. */
    static String xray(Throwable thrown) {
        Set<String> paths = new LinkedHashSet<String>();
        List<Object> stack = new ArrayList<Object>();
        for (StackTraceElement frame : thrown.getStackTrace()) {
            Map<String, Object> element = new LinkedHashMap<String, Object>();
            String path = frame.getFileName();
            if (path == null) {
                path = frame.getClassName().substring(frame.getClassName().lastIndexOf('.') + 1) + ".java";
            }
            paths.add(path);
            element.put("label", frame.getMethodName());
            element.put("path", path);
            element.put("line", frame.getLineNumber());
            stack.add(element);
        }
        Map<String, Object> exception = new LinkedHashMap<String, Object>();
        exception.put("message", thrown.getMessage());
        exception.put("type", thrown.getClass().getName());
        exception.put("stack", stack);
        Map<String, Object> cause = new LinkedHashMap<String, Object>();
        cause.put("working_directory", System.getProperty("user.dir"));
        cause.put("exceptions", Collections.singletonList(exception));
        cause.put("paths", new ArrayList<String>(paths));
        byte[] document = JsonWriter.plain(cause);
        return document.length > XRAY_MOST ? "" : new String(document, java.nio.charset.StandardCharsets.UTF_8);
    }

    private static Map<String, Object> tree(Throwable thrown, Set<Throwable> seen) {
        seen.add(thrown);
        Map<String, Object> payload = new LinkedHashMap<String, Object>();
        payload.put("errorMessage", Fault.message(thrown));
        payload.put("errorType", thrown.getClass().getName());
        List<Object> stack = new ArrayList<Object>();
        for (StackTraceElement frame : thrown.getStackTrace()) {
            stack.add(frame.toString());
        }
        payload.put("stackTrace", stack);
        Throwable cause = thrown.getCause();
        if (cause != null && !seen.contains(cause)) {
            payload.put("cause", tree(cause, seen));
        }
        return payload;
    }
}
