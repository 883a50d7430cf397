package lambent.runtime;

import com.amazonaws.services.lambda.runtime.LambdaLogger;
import com.amazonaws.services.lambda.runtime.logging.LogFormat;
import com.amazonaws.services.lambda.runtime.logging.LogLevel;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.text.SimpleDateFormat;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TimeZone;

/**
 * The logger of contexts (contract 03, 8): text, with the level in brackets where one was named, or JSON records.
 *
 * <p>Records go to standard output, each ending its line, or as frames to the descriptor that {@code _LAMBDA_TELEMETRY_LOG_FD} names.
 */
final class FunctionLogger implements LambdaLogger {
    private static final int FRAME = 0xa55a0000;

    private final PrintStream out;
    private final FileOutputStream frames; // null without a descriptor for them
    private final LogFormat format;
    private final LogLevel least;
    private final SimpleDateFormat clock;
    private volatile FunctionContext context;

    FunctionLogger(PrintStream out) {
        this.out = out;
        this.format = "JSON".equalsIgnoreCase(Environment.get("AWS_LAMBDA_LOG_FORMAT", "TEXT")) ? LogFormat.JSON : LogFormat.TEXT;
        this.least = level(Environment.get("AWS_LAMBDA_LOG_LEVEL", "UNDEFINED"));
        this.frames = descriptor(System.getenv("_LAMBDA_TELEMETRY_LOG_FD"));
        this.clock = format == LogFormat.JSON ? new SimpleDateFormat("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'") : null;
        if (clock != null) {
            clock.setTimeZone(TimeZone.getTimeZone("UTC"));
        }
    }

    void begin(FunctionContext context) {
        this.context = context;
    }

    /** What the runtime itself has to say of an error. */
    void error(String text) {
        log(text, format == LogFormat.JSON ? LogLevel.ERROR : LogLevel.UNDEFINED);
    }

    @Override
    public void log(String message) {
        log(message, LogLevel.UNDEFINED);
    }

    @Override
    public void log(byte[] message) {
        log(message, LogLevel.UNDEFINED);
    }

    @Override
    public void log(String message, LogLevel level) {
        if (isWanted(level)) {
            String text = String.valueOf(message);
            if (format == LogFormat.JSON) {
                text = record(message, level);
            } else if (level != LogLevel.UNDEFINED) {
                text = "[" + level + "] " + text;
            }
            write(text.getBytes(Output.UTF_8), level);
        }
    }

    @Override
    public void log(byte[] message, LogLevel level) {
        if (isWanted(level)) {
            write(message == null ? "null".getBytes(Output.UTF_8) : message, level);
        }
    }

    private boolean isWanted(LogLevel level) {
        return level == LogLevel.UNDEFINED || level.compareTo(least) >= 0;
    }

    private String record(String message, LogLevel level) {
        Map<String, Object> record = new LinkedHashMap<String, Object>();
        synchronized (clock) {
            record.put("timestamp", clock.format(new Date()));
        }
        record.put("message", message);
        record.put("level", level.name());
        FunctionContext now = context;
        if (now != null) {
            record.put("AWSRequestId", now.getAwsRequestId());
            if (now.getTenantId() != null) {
                record.put("tenantId", now.getTenantId());
            }
        }
        return new String(JsonWriter.plain(record), Output.UTF_8);
    }

    private void write(byte[] message, LogLevel level) {
        if (frames != null) {
            frame(message, level);
            return;
        }
        boolean ends = message.length > 0 && message[message.length - 1] == '\n';
        byte[] line = message;
        if (!ends) {
            line = java.util.Arrays.copyOf(message, message.length + 1);
            line[message.length] = '\n';
        }
        out.write(line, 0, line.length);
        out.flush();
    }

    private void frame(byte[] message, LogLevel level) {
        byte[] framed = new byte[16 + message.length];
        long micros = System.currentTimeMillis() * 1000;
        java.nio.ByteBuffer head = java.nio.ByteBuffer.wrap(framed);
        head.putInt(FRAME | level.ordinal() << 2 | (format == LogFormat.JSON ? 2 : 3)).putInt(message.length).putLong(micros).put(message);
        try {
            frames.write(framed);
        } catch (IOException gone) {
            out.write(message, 0, message.length);
        }
    }

    private static LogLevel level(String name) {
        try {
            return LogLevel.fromString(name);
        } catch (IllegalArgumentException unknown) {
            return LogLevel.UNDEFINED;
        }
    }

    private static FileOutputStream descriptor(String number) {
        try {
            return number == null ? null : new FileOutputStream(Channel.descriptor(Integer.parseInt(number)));
        } catch (IOException | NumberFormatException unusable) {
            return null;
        }
    }
}
