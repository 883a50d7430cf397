package com.amazonaws.services.lambda.runtime;

/** What the log4j appenders for Lambda tell the runtime: that the request id is wanted in log4j's thread context. */
public final class LambdaRuntimeInternal {
    private static volatile boolean useLog4jAppender;

    private LambdaRuntimeInternal() {
    }

    public static void setUseLog4jAppender(boolean use) {
        useLog4jAppender = use;
    }

    public static boolean getUseLog4jAppender() {
        return useLog4jAppender;
    }
}
