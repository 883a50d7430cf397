package com.amazonaws.services.lambda.runtime;

/** The Cognito identity that called, where one did. */
public interface CognitoIdentity {
    String getIdentityId();

    String getIdentityPoolId();
}
