package com.amazonaws.services.lambda.runtime;

/** What a handler is told of its invocation and its environment. */
public interface Context {
    String getAwsRequestId();

    String getLogGroupName();

    String getLogStreamName();

    String getFunctionName();

    String getFunctionVersion();

    String getInvokedFunctionArn();

    /** Null unless the call came with a Cognito identity. */
    CognitoIdentity getIdentity();

    /** Null unless the call came with a client context. */
    ClientContext getClientContext();

    /** Milliseconds until the invocation times out, never negative. */
    int getRemainingTimeInMillis();

    int getMemoryLimitInMB();

    LambdaLogger getLogger();

    /** The tenant of a function that isolates tenants, else null. */
    default String getTenantId() {
        return null;
    }

    /** The X-Ray trace header of the invocation, null without one. */
    default String getXrayTraceId() {
        return null;
    }
}
