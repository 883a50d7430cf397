package com.amazonaws.services.lambda.runtime;

import java.nio.charset.StandardCharsets;

/** Access to the logger from anywhere in a function. */
public final class LambdaRuntime {
    private static volatile LambdaLogger logger = new StandardOutput();

    private LambdaRuntime() {
    }

    public static LambdaLogger getLogger() {
        return logger;
    }

    /** Until the runtime puts its own in place. */
    private static final class StandardOutput implements LambdaLogger {
        @Override
        public void log(String message) {
            System.out.print(message);
        }

        @Override
        public void log(byte[] message) {
            System.out.print(new String(message, StandardCharsets.UTF_8));
        }
    }
}
