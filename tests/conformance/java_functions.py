"""The Java functions that the tests of the Java client run, as source; compiled by the tests with a JDK of this machine."""

from __future__ import annotations

SOURCES = {
    "demo/Maps.java": """
package demo;
import com.amazonaws.services.lambda.runtime.*;
import com.amazonaws.services.lambda.runtime.logging.LogLevel;
import java.util.*;

public class Maps implements RequestHandler<Map<String, Object>, Object> {
    private int calls;
    public Object handleRequest(Map<String, Object> event, Context context) {
        calls++;
        switch ((String) event.get("do")) {
            case "echo": return event.get("value");
            case "types": return types(event.get("value"));
            case "nothing": return null;
            case "describe": return describe(context);
            case "fail":
                throw new IllegalStateException((String) event.get("message"), new RuntimeException("inner", new Error("innermost")));
            case "silent": throw new UnsupportedOperationException();
            case "exit": System.exit((Integer) event.get("code")); return null;
            case "halt": Runtime.getRuntime().halt((Integer) event.get("code")); return null;
            case "deep": return deep(0);
            case "hoard": List<byte[]> hoard = new ArrayList<>(); while (true) hoard.add(new byte[1 << 20]);
            case "large": return new String(new char[(Integer) event.get("size")]).replace('\\0', 'x');
            case "cycle": List<Object> list = new ArrayList<>(); list.add(list); return list;
            case "special": return Arrays.asList(Double.NaN, 1.0f, 1e300, 'c', new StringBuilder("b"), Thread.State.NEW,
                Optional.of(1), Optional.empty(), new byte[] {1, 2, 3}, new Date(5), new int[] {1, 2},
                UUID.fromString("00000000-0000-0000-0000-000000000001"));
            case "calls": return calls;
            case "interrupt": Thread.currentThread().interrupt(); return Thread.currentThread().isInterrupted();
            case "interrupted": return Thread.currentThread().isInterrupted();
            case "env": return new TreeMap<>(System.getenv());
            case "child": return child((String) event.get("name"));
            case "zone": return TimeZone.getDefault().getID() + " " + Locale.getDefault() + " " + java.nio.charset.Charset.defaultCharset();
            case "loader": return Thread.currentThread().getContextClassLoader() == Maps.class.getClassLoader();
            case "class":
                try { return Class.forName((String) event.get("name")).getField("FROM").get(null); }
                catch (Exception e) { return e.toString(); }
            case "print": System.out.print("out "); System.out.println("line \\u00e9"); System.err.println("err"); return null;
            case "log": log(context.getLogger()); return null;
            case "globally": LambdaRuntime.getLogger().log("global"); return null;
            default: throw new IllegalArgumentException();
        }
    }
    private static void log(LambdaLogger logger) {
        logger.log("plain");
        logger.log("bytes".getBytes());
        logger.log("two\\nlines", LogLevel.INFO);
        logger.log("hidden?", LogLevel.DEBUG);
        logger.log((String) null);
        logger.log("\\"grave\\"\\n", LogLevel.FATAL);
    }
    private static List<String> types(Object value) {
        List<String> names = new ArrayList<>();
        for (Object each : (List<?>) value) names.add(each == null ? "null" : each.getClass().getSimpleName());
        return names;
    }
    private int deep(int level) { return deep(level + 1) + 1; }
    private static String child(String name) {
        try {
            Process process = new ProcessBuilder("/bin/sh", "-c", "echo $" + name).start();
            try (Scanner scanner = new Scanner(process.getInputStream())) { return scanner.nextLine(); }
        } catch (java.io.IOException e) { throw new RuntimeException(e); }
    }
    private Map<String, Object> describe(Context context) {
        Map<String, Object> said = new TreeMap<>();
        said.put("request", context.getAwsRequestId());
        said.put("arn", context.getInvokedFunctionArn());
        said.put("name", context.getFunctionName());
        said.put("version", context.getFunctionVersion());
        said.put("memory", context.getMemoryLimitInMB());
        said.put("group", context.getLogGroupName());
        said.put("stream", context.getLogStreamName());
        said.put("remaining", context.getRemainingTimeInMillis());
        said.put("tenant", String.valueOf(context.getTenantId()));
        said.put("trace", Arrays.asList(String.valueOf(context.getXrayTraceId()),
            System.getProperty("com.amazonaws.xray.traceHeader", "none"), String.valueOf(System.getenv("_X_AMZN_TRACE_ID"))));
        CognitoIdentity identity = context.getIdentity();
        said.put("identity", identity == null ? "none" : identity.getIdentityId() + " " + identity.getIdentityPoolId());
        ClientContext client = context.getClientContext();
        said.put("client", client == null ? "none" : Arrays.asList(client.getClient().getInstallationId(),
            client.getClient().getAppTitle(), client.getClient().getAppVersionName(), client.getClient().getAppVersionCode(),
            client.getClient().getAppPackageName(), client.getCustom(), client.getEnvironment()));
        return said;
    }
}
""",
    "demo/Base.java": """
package demo;
import java.util.*;

public class Base<T> {
    private T first;
    private List<T> items;
    public T getFirst() { return first; }
    public void setFirst(T first) { this.first = first; }
    public List<T> getItems() { return items; }
    public void setItems(List<T> items) { this.items = items; }
}
""",
    "demo/Item.java": """
package demo;
import java.math.*;

public class Item {
    private String name;
    private BigDecimal price;
    public String getName() { return name; }
    public Item setName(String name) { this.name = name; return this; }
    public BigDecimal getPrice() { return price; }
    public void setPrice(BigDecimal price) { this.price = price; }
}
""",
    "demo/Order.java": """
package demo;
import java.math.*;
import java.time.*;
import java.util.*;

public class Order extends Base<Item> {
    public enum Color { RED, GREEN }
    public String note;
    private int count;
    private Long big;
    private double ratio;
    private boolean paid;
    private Boolean sent;
    private char mark;
    private Color color;
    private Map<String, List<Integer>> groups;
    private Map<Color, Item> byColor;
    private Set<String> tags;
    private Item[] array;
    private byte[] data;
    private Date date;
    private Instant moment;
    private LocalDate day;
    private LocalDateTime time;
    private Duration span;
    private Optional<String> maybe;
    private UUID id;
    private String URL;
    private BigInteger huge;
    private Object anything;
    private String secret = "kept";
    private transient String passing = "not written";
    public int getCount() { return count; }
    public void setCount(int count) { this.count = count; }
    public Long getBig() { return big; }
    public void setBig(Long big) { this.big = big; }
    public double getRatio() { return ratio; }
    public void setRatio(double ratio) { this.ratio = ratio; }
    public boolean isPaid() { return paid; }
    public void setPaid(boolean paid) { this.paid = paid; }
    public Boolean getSent() { return sent; }
    public void setSent(Boolean sent) { this.sent = sent; }
    public char getMark() { return mark; }
    public void setMark(char mark) { this.mark = mark; }
    public Color getColor() { return color; }
    public void setColor(Color color) { this.color = color; }
    public Map<String, List<Integer>> getGroups() { return groups; }
    public void setGroups(Map<String, List<Integer>> groups) { this.groups = groups; }
    public Map<Color, Item> getByColor() { return byColor; }
    public void setByColor(Map<Color, Item> byColor) { this.byColor = byColor; }
    public Set<String> getTags() { return tags; }
    public void setTags(Set<String> tags) { this.tags = new TreeSet<>(tags); }
    public Item[] getArray() { return array; }
    public void setArray(Item[] array) { this.array = array; }
    public byte[] getData() { return data; }
    public void setData(byte[] data) { this.data = data; }
    public Date getDate() { return date; }
    public void setDate(Date date) { this.date = date; }
    public Instant getMoment() { return moment; }
    public void setMoment(Instant moment) { this.moment = moment; }
    public LocalDate getDay() { return day; }
    public void setDay(LocalDate day) { this.day = day; }
    public LocalDateTime getTime() { return time; }
    public void setTime(LocalDateTime time) { this.time = time; }
    public Duration getSpan() { return span; }
    public void setSpan(Duration span) { this.span = span; }
    public Optional<String> getMaybe() { return maybe; }
    public void setMaybe(Optional<String> maybe) { this.maybe = maybe; }
    public UUID getId() { return id; }
    void setId(UUID id) { this.id = id; }
    public String getURL() { return URL; }
    public void setURL(String url) { this.URL = url; }
    public BigInteger getHuge() { return huge; }
    public void setHuge(BigInteger huge) { this.huge = huge; }
    public Object getAnything() { return anything; }
    public void setAnything(Object anything) { this.anything = anything; }
    String getSecret() { return secret; }
    public String getComputed() { return "computed"; }
    public static String getShared() { return "static"; }
    public void setAge(int age) { if (age < 0) throw new IllegalArgumentException("negative age"); }
    public static class Sub extends Order { public String getMore() { return "more"; } }
}
""",
    "demo/Forms.java": """
package demo;
import com.amazonaws.services.lambda.runtime.*;
import java.io.*;
import java.util.*;

public class Forms {
    public Order order(Order order) { return order; }
    public Order asBase(Order order, Context context) { return new Order.Sub(); }
    public Object asObject() { return new Order.Sub(); }
    public static String fixed(String text) { return text + "!"; }
    public int number(int number) { return number + 1; }
    public Integer boxed(Integer number) { return number; }
    public double half(double number) { return number / 2; }
    public boolean not(boolean value) { return !value; }
    public List<Item> items(List<Item> items) { Collections.reverse(items); return items; }
    public String[] array(String[] names) { return names; }
    public Order.Color color(Order.Color color) { return color; }
    public void nothing(Object event) { }
    public String none() { return "none"; }
    public String contextOnly(Context context) { return context.getFunctionName(); }
    public void copy(InputStream in, OutputStream out, Context context) throws IOException { copy(in, out); }
    public void both(InputStream in, OutputStream out) throws IOException { copy(in, out); }
    public void out(OutputStream out) throws IOException { out.write("raw".getBytes()); }
    public void outContext(OutputStream out, Context context) throws IOException { out.write(context.getAwsRequestId().getBytes()); }
    public void in(InputStream in) throws IOException { in.read(); }
    public String many(String a) { return "one"; }
    public String many(String a, Context context) { return "with context"; }
    public String many(String a, String b) { return "two"; }
    public String unfit(String a, String b) { return a; }
    public String tooMany(String a, String b, String c, String d) { return a; }
    public String three(String a, String b, Context context) { return a; }
    private String hidden(String a) { return a; }
    public String fails(String a) { throw new IllegalArgumentException(a); }
    private static void copy(InputStream in, OutputStream out) throws IOException {
        for (int each; (each = in.read()) >= 0;) out.write(each);
    }
    public static class Nested implements RequestHandler<String, String> {
        public String handleRequest(String input, Context context) { return "nested " + input; }
    }
    public static abstract class Generic<X, Y> implements RequestHandler<Y, List<X>> { }
    public static class Concrete extends Generic<String, Item> {
        public List<String> handleRequest(Item item, Context context) { return Arrays.asList(item.getName()); }
    }
    public interface Both<T> extends RequestHandler<T, T> { }
    public static class OfInterface implements Both<Order.Color> {
        public Order.Color handleRequest(Order.Color color, Context context) { return color; }
    }
    public static class Stream implements RequestStreamHandler {
        public void handleRequest(InputStream in, OutputStream out, Context context) throws IOException { copy(in, out); }
    }
    public class Inner implements RequestHandler<String, String> {
        public String handleRequest(String input, Context context) { return input; }
    }
    public static class NoConstructor implements RequestHandler<String, String> {
        public NoConstructor(int number) { }
        public String handleRequest(String input, Context context) { return input; }
    }
    @SuppressWarnings("rawtypes")
    public static class Raw implements RequestHandler {
        public Object handleRequest(Object input, Context context) { return input; }
    }
    public static class Unbound<T> implements RequestHandler<T, String> {
        public String handleRequest(T input, Context context) { return "unbound"; }
    }
    public static class BadStatic implements RequestHandler<String, String> {
        static final int ZERO = Integer.parseInt("x");
        public String handleRequest(String input, Context context) { return input; }
    }
    public static class BadConstructor implements RequestHandler<String, String> {
        public BadConstructor() { throw new IllegalStateException("not today"); }
        public String handleRequest(String input, Context context) { return input; }
    }
}
""",
    "com/amazonaws/services/lambda/runtime/events/SQSEvent.java": """
package com.amazonaws.services.lambda.runtime.events;
import java.util.*;

public class SQSEvent {
    private List<SQSMessage> records;
    public List<SQSMessage> getRecords() { return records; }
    public void setRecords(List<SQSMessage> records) { this.records = records; }
    public static class SQSMessage {
        private String body;
        private String eventSourceArn;
        private Date sent;
        public String getBody() { return body; }
        public void setBody(String body) { this.body = body; }
        public String getEventSourceArn() { return eventSourceArn; }
        public void setEventSourceArn(String arn) { this.eventSourceArn = arn; }
        public Date getSent() { return sent; }
        public void setSent(Date sent) { this.sent = sent; }
    }
    public SQSEvent handle(SQSEvent event) {
        if (event.records.get(0).sent.getTime() != 1500) throw new IllegalStateException(event.records.get(0).sent.toString());
        return event;
    }
}
""",
    "com/amazonaws/services/lambda/runtime/events/S3Event.java": """
package com.amazonaws.services.lambda.runtime.events;
import java.util.*;

public class S3Event {
    private final List<Record> records;
    public S3Event(List<Record> records) { this.records = records; }
    public List<Record> getRecords() { return records; }
    public static class Record {
        private final String eventName;
        private final String awsRegion;
        public Record(String eventName, String awsRegion) { this.eventName = eventName; this.awsRegion = awsRegion; }
        public String getEventName() { return eventName; }
        public String getAwsRegion() { return awsRegion; }
    }
    public static S3Event handle(S3Event event) { return event; }
}
""",
}

CUSTOM = {
    "demo/Shouting.java": """
package demo;
import com.amazonaws.services.lambda.runtime.CustomPojoSerializer;
import java.io.*;
import java.lang.reflect.Type;
import java.util.Scanner;

public class Shouting implements CustomPojoSerializer {
    @SuppressWarnings("unchecked")
    public <T> T fromJson(InputStream input, Type type) { return (T) (type.getTypeName() + " " + new Scanner(input).nextLine()); }
    @SuppressWarnings("unchecked")
    public <T> T fromJson(String input, Type type) { return (T) input; }
    public <T> void toJson(T value, OutputStream output, Type type) {
        try { output.write(value.toString().toUpperCase().getBytes()); } catch (IOException e) { throw new UncheckedIOException(e); }
    }
}
""",
}

RECORD = {
    "demo/Records.java": """
package demo;
import java.util.*;

public class Records {
    public record Point(int x, Integer y, List<Point> more) { public String label() { return "not a component"; } }
    public Point handle(Point point) { return point; }
}
""",
}

PLACED = {"place/Where.java": 'package place; public class Where { public static final String FROM = new String("%s"); }'}
