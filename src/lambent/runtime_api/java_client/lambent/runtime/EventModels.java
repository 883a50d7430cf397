package lambent.runtime;

import java.util.Collections;
import java.util.HashMap;
import java.util.Map;

/**
 * The names in JSON of the event classes that functions ship (aws-lambda-java-events), where they are not those of the properties.
 *
 * <p>AWS's runtime knows these classes by name, too: annotations are of no use to a runtime whose loader is another than the function's.
 */
final class EventModels {
    private static final String PACKAGE = "com.amazonaws.services.";
    private static final String EVENTS = "com.amazonaws.services.lambda.runtime.events.";
    private static final String S3 = "S3EventNotification";
    private static final String[] TABLE = {
        "CloudFormationCustomResourceEvent requestType:RequestType serviceToken:ServiceToken physicalResourceId:PhysicalResourceId"
                + " responseUrl:ResponseURL stackId:StackId requestId:RequestId logicalResourceId:LogicalResourceId"
                + " resourceType:ResourceType resourceProperties:ResourceProperties oldResourceProperties:OldResourceProperties",
        "CloudFrontEvent records:Records",
        "CloudWatchLogsEvent awsLogs:awslogs",
        "CodeCommitEvent records:Records",
        "CodeCommitEvent$Record codeCommit:codecommit eventSourceArn:eventSourceARN userIdentityArn:userIdentityARN",
        "ConnectEvent details:Details name:Name",
        "ConnectEvent$Details contactData:ContactData parameters:Parameters",
        "ConnectEvent$ContactData attributes:Attributes channel:Channel contactId:ContactId customerEndpoint:CustomerEndpoint"
                + " initialContactId:InitialContactId initiationMethod:InitiationMethod instanceArn:InstanceARN"
                + " previousContactId:PreviousContactId queue:Queue systemEndpoint:SystemEndpoint",
        "ConnectEvent$CustomerEndpoint address:Address type:Type",
        "ConnectEvent$SystemEndpoint address:Address type:Type",
        "ConnectEvent$Queue name:Name ARN:ARN",
        "DynamodbEvent records:Records",
        "DynamodbTimeWindowEvent records:Records",
        "DynamodbEvent$DynamodbStreamRecord eventSourceArn:eventSourceARN",
        "StreamRecord keys:Keys sizeBytes:SizeBytes sequenceNumber:SequenceNumber streamViewType:StreamViewType newImage:NewImage"
                + " oldImage:OldImage approximateCreationDateTime:ApproximateCreationDateTime",
        "AttributeValue s:S n:N b:B null:NULL bool:BOOL SS:SS NS:NS BS:BS m:M l:L",
        "KinesisEvent records:Records",
        "KinesisTimeWindowEvent records:Records",
        "ScheduledEvent detailType:detail-type",
        "SecretsManagerRotationEvent step:Step secretId:SecretId clientRequestToken:ClientRequestToken",
        "SNSEvent records:Records",
        "SNSEvent$SNSRecord SNS:Sns sns:Sns eventVersion:EventVersion eventSource:EventSource eventSubscriptionArn:EventSubscriptionArn",
        "SNSEvent$SNS messageAttributes:MessageAttributes signingCertUrl:SigningCertUrl messageId:MessageId message:Message"
                + " subject:Subject unsubscribeUrl:UnsubscribeUrl type:Type signatureVersion:SignatureVersion signature:Signature"
                + " timestamp:Timestamp topicArn:TopicArn",
        "SNSEvent$MessageAttribute type:Type value:Value",
        "SQSEvent records:Records",
        "SQSEvent$SQSMessage eventSourceArn:eventSourceARN",
        S3 + " records:Records",
        "S3Event records:Records",
        S3 + "$S3ObjectEntity ETag:eTag",
        S3 + "$RequestParametersEntity sourceIPAddress:sourceIPAddress",
        S3 + "$ResponseElementsEntity xAmzId2:x-amz-id-2 xAmzRequestId:x-amz-request-id XAmzId2:x-amz-id-2"
                + " XAmzRequestId:x-amz-request-id",
    };
    private static final Map<String, Map<String, String>> NAMES = new HashMap<String, Map<String, String>>();

    static {
        for (String row : TABLE) {
            String[] words = row.split(" ");
            Map<String, String> names = new HashMap<String, String>();
            for (int i = 1; i < words.length; i++) {
                int colon = words[i].indexOf(':');
                names.put(words[i].substring(0, colon), words[i].substring(colon + 1));
            }
            NAMES.put(words[0], names);
        }
    }

    private EventModels() {
    }

    /** Property to name in JSON, for those where they differ. */
    static Map<String, String> names(Class<?> type) {
        if (!isModel(type)) {
            return Collections.emptyMap();
        }
        String name = type.getName();
        Map<String, String> names = NAMES.get(name.substring(name.lastIndexOf('.') + 1));
        return names == null ? Collections.<String, String>emptyMap() : names;
    }

    /** Is this an event class? Their dates are seconds, and those without an empty constructor are made from their fields in order. */
    static boolean isModel(Class<?> type) {
        String name = type.getName();
        return name.startsWith(PACKAGE)
                && (name.startsWith(EVENTS)
                        || name.startsWith(PACKAGE + "s3.event.")
                        || name.startsWith(PACKAGE + "dynamodbv2.model."));
    }
}
