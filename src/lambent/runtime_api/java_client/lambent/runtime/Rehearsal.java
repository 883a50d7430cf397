package lambent.runtime;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A made-up function, gone through before there is a real one: loads and links what every function needs, and lets the virtual machine
 * note it for its class archive.
 */
final class Rehearsal {
    private static final String HEAD = "1\n00000000-0000-4000-8000-000000000000\n4102444800000\narn:aws:lambda:us-east-1:000000000000:"
            + "function:f\nRoot=1-0-0\n\n{\"cognitoIdentityId\":\"i\"}\n{\"custom\":{\"a\":\"b\"}}";
    private static final String EVENT = "{\"name\":\"a\\n\\u00e9\",\"count\":1,\"ratio\":0.5,\"list\":[true,null,\"x\"],\"inner\":{\"big\":123456789012}}";

    private Rehearsal() {
    }

    /** What a function's own types are like. */
    public static final class Thing {
        private String name;
        private int count;
        private List<Object> list;
        private Map<String, Long> inner;

        public String getName() {
            return name;
        }

        public void setName(String name) {
            this.name = name;
        }

        public int getCount() {
            return count;
        }

        public void setCount(int count) {
            this.count = count;
        }

        public List<Object> getList() {
            return list;
        }

        public void setList(List<Object> list) {
            this.list = list;
        }

        public Map<String, Long> getInner() {
            return inner;
        }

        public void setInner(Map<String, Long> inner) {
            this.inner = inner;
        }
    }

    /** Takes and gives a bean. */
    public static final class OfBeans implements RequestHandler<Thing, Thing> {
        @Override
        public Thing handleRequest(Thing input, Context context) {
            return input;
        }
    }

    /** Takes and gives a map; fails when asked to. */
    public static final class OfMaps {
        public Map<String, Object> handle(Map<String, Object> input, Context context) {
            Map<String, Object> answer = new LinkedHashMap<String, Object>(input);
            answer.put("left", context.getRemainingTimeInMillis());
            if (input.isEmpty()) {
                throw new IllegalArgumentException("empty");
            }
            return answer;
        }
    }

    static void run() {
        try {
            FunctionLoader loader = new FunctionLoader("/nowhere", "/nowhere");
            FunctionContext context = new FunctionContext(new Invocation(HEAD, new byte[0]), new FunctionLogger(System.out));
            String[] handlers = {"lambent.runtime.Rehearsal$OfBeans", "lambent.runtime.Rehearsal$OfMaps::handle"};
            for (String each : handlers) {
                Handler handler = Handlers.load(each, loader);
                for (int i = 0; i < 3; i++) {
                    handler.call(EVENT.getBytes(Output.UTF_8), new Output(), context);
                }
            }
            try {
                Handlers.load(handlers[1], loader).call("{}".getBytes(Output.UTF_8), new Output(), context);
            } catch (IllegalArgumentException expected) {
                Payloads.of(Fault.withoutOurs(expected));
                Payloads.xray(expected);
            }
            Environment.set("_LAMBENT_REHEARSAL", "1");
            Environment.set("_LAMBENT_REHEARSAL", null);
            new Channel(3);
            loader.close();
        } catch (Throwable impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
