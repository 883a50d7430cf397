package com.amazonaws.services.lambda.runtime;

/** The application on the caller's device, as the AWS Mobile SDK describes it. */
public interface Client {
    String getInstallationId();

    String getAppTitle();

    String getAppVersionName();

    String getAppVersionCode();

    String getAppPackageName();
}
