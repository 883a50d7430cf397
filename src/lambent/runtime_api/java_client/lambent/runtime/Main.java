package lambent.runtime;

import com.amazonaws.services.lambda.runtime.LambdaRuntime;
import com.amazonaws.services.lambda.runtime.LambdaRuntimeInternal;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.IOError;
import java.io.IOException;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.TimeZone;

/**
 * The Java runtime inside a sandbox: loads the handler of {@code _HANDLER} and answers events from descriptor 3.
 *
 * <p>{@code --warm} starts without a function: it gets everything ready, then waits for {@code {"env": {...}, "handler": "..."}} on
 * descriptor 4. {@code --rehearse} gets everything ready and ends, so that the virtual machine can note what a start needs
 * (class data sharing).
 *
 * <p>Runs on Java 8 to 25. Nothing here uses lambdas, streams or regular expressions before the first event: each costs milliseconds of a
 * start. The order of log and answer matters: what an invocation logged is written before its answer is.
 */
public final class Main {
    private static final int CHANNEL = 3;
    private static final int ASSIGNMENT = 4;
    private static final String TRACE_PROPERTY = "com.amazonaws.xray.traceHeader";

    private final Channel channel;
    private final FunctionLogger logger;
    private final Output output = new Output();

    private Main(Channel channel, PrintStream out) throws ReflectiveOperationException {
        this.channel = channel;
        this.logger = new FunctionLogger(out);
        Field field = LambdaRuntime.class.getDeclaredField("logger");
        field.setAccessible(true);
        field.set(null, logger);
    }

    public static void main(String[] arguments) throws Throwable {
        String mode = arguments.length > 0 ? arguments[0] : "";
        PrintStream out = Output.unbuffered(FileDescriptor.out);
        System.setOut(out);
        System.setErr(Output.unbuffered(FileDescriptor.err));
        if (System.getProperty("user.country") == null && "en".equals(System.getProperty("user.language"))) {
            System.setProperty("user.country", "US"); // what LANG says, and C.UTF-8 does not
            Locale.setDefault(Locale.US);
        }
        String handler = Environment.get("_HANDLER", "");
        if (mode.equals("--rehearse")) {
            Rehearsal.run();
            return;
        }
        if (mode.equals("--warm")) {
            Rehearsal.run();
            ProcessVariables.check();
            handler = assignment();
        }
        new Main(new Channel(CHANNEL), out).run(handler);
    }

    /** Wait until this process is given a function; become its process. Gives the handler. */
    private static String assignment() throws IOException, ReflectiveOperationException {
        byte[] told = new byte[65_536];
        int length = 0;
        FileInputStream in = new FileInputStream(Channel.descriptor(ASSIGNMENT));
        while (true) {
            int count = in.read(told, length, told.length - length);
            if (count < 0) {
                break;
            }
            length += count;
            if (length == told.length) {
                told = java.util.Arrays.copyOf(told, 2 * length);
            }
        }
        in.close();
        if (length == 0) {
            Runtime.getRuntime().halt(0); // the one who would have told is gone
        }
        Map<?, ?> assignment = (Map<?, ?>) JsonReader.read(java.util.Arrays.copyOf(told, length));
        Map<String, String> variables = new LinkedHashMap<String, String>();
        for (Map.Entry<?, ?> entry : ((Map<?, ?>) assignment.get("env")).entrySet()) {
            variables.put((String) entry.getKey(), (String) entry.getValue());
        }
        Environment.replace(variables);
        ProcessVariables.replace(variables);
        String zone = variables.get("TZ");
        if (zone != null && !zone.equals(":UTC")) {
            TimeZone.setDefault(TimeZone.getTimeZone(zone.startsWith(":") ? zone.substring(1) : zone));
        }
        return (String) assignment.get("handler");
    }

    private void run(String name) throws IOException {
        String taskRoot = Environment.get("LAMBDA_TASK_ROOT", System.getProperty("user.dir"));
        FunctionLoader loader = new FunctionLoader(taskRoot, System.getProperty("lambent.layers", "/opt/java"));
        Thread.currentThread().setContextClassLoader(loader);
        Handler handler;
        try {
            handler = Handlers.load(name, loader);
        } catch (Fault fault) {
            logger.error(fault.report());
            byte[] payload = Payloads.of(fault);
            channel.hold(Channel.INIT_ERROR, "Runtime.BadFunctionCode", payload, payload.length);
            channel.flush();
            System.exit(1);
            return;
        }
        while (answer(handler, channel.next())) {
            Thread.interrupted(); // a handler's own interruptions are not for the next
        }
        channel.flush();
    }

    /** Answer one event. False if this virtual machine should not be used again. */
    private boolean answer(Handler handler, Invocation invocation) {
        output.renew();
        String address = invocation.token + "\n" + invocation.requestId + "\n";
        try {
            trace(invocation.trace);
            FunctionContext context = new FunctionContext(invocation, logger);
            logger.begin(context);
            if (LambdaRuntimeInternal.getUseLog4jAppender()) {
                tellLog4j(invocation.requestId);
            }
            handler.call(invocation.event, output, context);
            channel.hold(Channel.RESPONSE, address + "application/json", output.bytes(), output.size());
            return true;
        } catch (Fault fault) {
            logger.error(fault.report());
            byte[] payload = Payloads.of(fault);
            channel.hold(Channel.ERROR, address + "Runtime.BadFunctionCode\n", payload, payload.length);
            return !fault.fatal;
        } catch (Throwable thrown) {
            Fault.withoutOurs(thrown);
            logger.error(Fault.of(thrown, false).report());
            byte[] payload = Payloads.of(thrown);
            channel.hold(Channel.ERROR, address + "Runtime.UserException\n" + Payloads.xray(thrown), payload, payload.length);
            return !(thrown instanceof VirtualMachineError || thrown instanceof IOError);
        }
    }

    private static void trace(String header) {
        if (header.isEmpty()) {
            System.clearProperty(TRACE_PROPERTY);
            Environment.set("_X_AMZN_TRACE_ID", null);
        } else {
            System.setProperty(TRACE_PROPERTY, header);
            Environment.set("_X_AMZN_TRACE_ID", header);
        }
    }

    /** The appenders for log4j print the request id from its thread context. */
    private static void tellLog4j(String requestId) {
        ClassLoader loader = Thread.currentThread().getContextClassLoader();
        String[][] contexts = {{"org.apache.log4j.MDC", "java.lang.Object"}, {"org.apache.logging.log4j.ThreadContext", "java.lang.String"}};
        for (String[] each : contexts) {
            try {
                Class<?> context = Class.forName(each[0], true, loader);
                context.getMethod("put", String.class, Class.forName(each[1])).invoke(null, "AWSRequestId", requestId);
            } catch (ReflectiveOperationException | LinkageError absent) {
                continue;
            }
        }
    }
}
