package com.amazonaws.services.lambda.runtime;

/** A handler that takes and gives values; the runtime converts them from and to JSON. */
public interface RequestHandler<I, O> {
    O handleRequest(I input, Context context);
}
