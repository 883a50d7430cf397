// The sample of the Java family.
package sample;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

public class Sample implements RequestHandler<Map<String, Object>, Object> {
    private int count;

    public Sample() {
        if (System.getenv("FAIL_INIT") != null) throw new IllegalStateException("closed today");
    }

    public Object handleRequest(Map<String, Object> event, Context context) {
        count++;
        try {
            switch (String.valueOf(event.get("do"))) {
                case "count": return count;
                case "fail": throw new IllegalStateException("oh dear");
                case "exit": System.exit(((Number) event.get("code")).intValue()); return null;
                case "kill": new ProcessBuilder("/bin/sh", "-c", "kill -9 $PPID").start().waitFor(); return null;
                case "sleep": Thread.sleep(60_000); return null;
                case "memory": List<byte[]> hoard = new ArrayList<>(); while (true) hoard.add(new byte[10_000_000]);
                case "log": for (String word : Arrays.asList("one", "two", "three")) System.out.println("line " + word); return event;
                case "context": return contextOf(context);
                case "env": return environment();
                case "layer": return Arrays.asList(new String(Files.readAllBytes(Paths.get("/opt/data.txt"))), layered());
                case "keep": Files.write(Paths.get("/tmp/kept"), "kept".getBytes()); return event;
                case "kept": return Files.exists(Paths.get("/tmp/kept"));
                default: return event;
            }
        } catch (IOException | InterruptedException e) {
            throw new RuntimeException(e);
        }
    }

    private static Map<String, Object> contextOf(Context context) {
        Map<String, Object> told = new HashMap<>();
        told.put("id", context.getAwsRequestId());
        told.put("arn", context.getInvokedFunctionArn());
        told.put("left", context.getRemainingTimeInMillis());
        told.put("name", context.getFunctionName());
        told.put("version", context.getFunctionVersion());
        told.put("memory", context.getMemoryLimitInMB());
        told.put("group", context.getLogGroupName());
        told.put("stream", context.getLogStreamName());
        told.put("client", context.getClientContext() == null ? null : context.getClientContext().getCustom());
        told.put("trace", System.getProperty("com.amazonaws.xray.traceHeader"));
        return told;
    }

    private static Map<String, Object> environment() {
        Map<String, Object> told = new HashMap<>();
        String names = System.getenv("SHOWN");
        for (String name : names.substring(2, names.length() - 2).split("\", \"")) told.put(name, System.getenv(name));
        return told;
    }

    private static String layered() throws IOException {
        try (BufferedReader text = new BufferedReader(
                new InputStreamReader(Sample.class.getResourceAsStream("/layered.txt"), StandardCharsets.UTF_8))) {
            return text.readLine();
        }
    }
}
