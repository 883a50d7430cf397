package lambent.runtime;

import com.amazonaws.services.lambda.runtime.Client;
import com.amazonaws.services.lambda.runtime.ClientContext;
import com.amazonaws.services.lambda.runtime.CognitoIdentity;
import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.LambdaLogger;
import java.util.LinkedHashMap;
import java.util.Map;

/** The context of one invocation. */
final class FunctionContext implements Context {
    private static final String PREFIX = "AWS_LAMBDA_";

    private final Invocation invocation;
    private final LambdaLogger logger;
    private final CognitoIdentity identity;
    private final ClientContext client;

    FunctionContext(Invocation invocation, LambdaLogger logger) throws JsonException {
        this.invocation = invocation;
        this.logger = logger;
        this.identity = invocation.cognito.isEmpty() ? null : new Identity(object(JsonReader.read(invocation.cognito)));
        this.client = invocation.client.isEmpty() ? null : new Caller(object(JsonReader.read(invocation.client)));
    }

    @Override
    public String getAwsRequestId() {
        return invocation.requestId;
    }

    @Override
    public String getLogGroupName() {
        return System.getenv(PREFIX + "LOG_GROUP_NAME");
    }

    @Override
    public String getLogStreamName() {
        return System.getenv(PREFIX + "LOG_STREAM_NAME");
    }

    @Override
    public String getFunctionName() {
        return System.getenv(PREFIX + "FUNCTION_NAME");
    }

    @Override
    public String getFunctionVersion() {
        return System.getenv(PREFIX + "FUNCTION_VERSION");
    }

    @Override
    public String getInvokedFunctionArn() {
        return invocation.arn;
    }

    @Override
    public CognitoIdentity getIdentity() {
        return identity;
    }

    @Override
    public ClientContext getClientContext() {
        return client;
    }

    @Override
    public int getRemainingTimeInMillis() {
        return (int) Math.max(0, invocation.deadline - System.currentTimeMillis());
    }

    @Override
    public int getMemoryLimitInMB() {
        return Integer.parseInt(Environment.get(PREFIX + "FUNCTION_MEMORY_SIZE", "128"));
    }

    @Override
    public LambdaLogger getLogger() {
        return logger;
    }

    @Override
    public String getTenantId() {
        return invocation.tenant.isEmpty() ? null : invocation.tenant;
    }

    @Override
    public String getXrayTraceId() {
        return invocation.trace.isEmpty() ? null : invocation.trace;
    }

    private static Map<?, ?> object(Object value) {
        return value instanceof Map ? (Map<?, ?>) value : new LinkedHashMap<Object, Object>();
    }

    private static String text(Map<?, ?> object, String name) {
        Object value = object.get(name);
        return value == null ? null : value.toString();
    }

    private static final class Identity implements CognitoIdentity {
        private final Map<?, ?> said;

        Identity(Map<?, ?> said) {
            this.said = said;
        }

        @Override
        public String getIdentityId() {
            return text(said, "cognitoIdentityId");
        }

        @Override
        public String getIdentityPoolId() {
            return text(said, "cognitoIdentityPoolId");
        }
    }

    private static final class Caller implements ClientContext, Client {
        private final Map<?, ?> said;

        Caller(Map<?, ?> said) {
            this.said = said;
        }

        @Override
        public Client getClient() {
            return said.get("client") == null ? null : this;
        }

        @Override
        public Map<String, String> getCustom() {
            return texts("custom");
        }

        @Override
        public Map<String, String> getEnvironment() {
            return texts("env");
        }

        @Override
        public String getInstallationId() {
            return text(object(said.get("client")), "installation_id");
        }

        @Override
        public String getAppTitle() {
            return text(object(said.get("client")), "app_title");
        }

        @Override
        public String getAppVersionName() {
            return text(object(said.get("client")), "app_version_name");
        }

        @Override
        public String getAppVersionCode() {
            return text(object(said.get("client")), "app_version_code");
        }

        @Override
        public String getAppPackageName() {
            return text(object(said.get("client")), "app_package_name");
        }

        private Map<String, String> texts(String name) {
            if (said.get(name) == null) {
                return null;
            }
            Map<String, String> found = new LinkedHashMap<String, String>();
            for (Map.Entry<?, ?> entry : object(said.get(name)).entrySet()) {
                Object value = entry.getValue();
                boolean nested = value instanceof Map || value instanceof java.util.List;
                found.put((String) entry.getKey(), nested ? new String(JsonWriter.plain(value), Output.UTF_8) : value == null ? null
                        : value.toString());
            }
            return found;
        }
    }
}
