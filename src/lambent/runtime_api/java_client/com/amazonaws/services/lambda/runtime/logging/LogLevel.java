package com.amazonaws.services.lambda.runtime.logging;

/** How grave a log record is, in rising order. UNDEFINED is that of records logged without one; they are never left out. */
public enum LogLevel {
    UNDEFINED,
    TRACE,
    DEBUG,
    INFO,
    WARN,
    ERROR,
    FATAL;

    public static LogLevel fromString(String name) {
        try {
            return valueOf(name.toUpperCase());
        } catch (RuntimeException unknown) {
            throw new IllegalArgumentException(
                    "Invalid log level: '" + name + "' expected one of [TRACE, DEBUG, INFO, WARN, ERROR, FATAL]");
        }
    }
}
