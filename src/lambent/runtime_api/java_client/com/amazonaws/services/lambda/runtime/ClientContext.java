package com.amazonaws.services.lambda.runtime;

import java.util.Map;

/** What the caller passed as the client context of an invocation. */
public interface ClientContext {
    Client getClient();

    /** Values that the caller chose; may be null. */
    Map<String, String> getCustom();

    /** The caller's environment; may be null. */
    Map<String, String> getEnvironment();
}
