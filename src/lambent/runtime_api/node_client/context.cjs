// The context object of an invocation, from the fields of its frame and the environment.

'use strict';

const W3C = ['traceparent', 'tracestate', 'baggage'];

// `fields`: token, request id, deadline, function ARN, trace, tenant, Cognito identity, client context. `base` brings what the handler's
// kind adds; own properties are AWS's. Throws where a part that should be JSON is not.
function makeContext(fields, base, splitsTrace) {
  const [, requestId, deadline, arn, , tenant, cognito, client] = fields;
  const env = process.env;
  const clientContext = parsed(client, 'ClientContext');
  const context = Object.assign(base, {
    functionVersion: env.AWS_LAMBDA_FUNCTION_VERSION,
    functionName: env.AWS_LAMBDA_FUNCTION_NAME,
    memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext,
    identity: parsed(cognito, 'CognitoIdentity'),
    invokedFunctionArn: arn,
    awsRequestId: requestId,
    tenantId: tenant || undefined,
    getRemainingTimeInMillis: () => deadline - Date.now(),
  });
  if (splitsTrace) {
    const carried = w3cOf(clientContext);
    context.w3c = () => carried;
  }
  return context;
}

function parsed(text, name) {
  if (!text) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`Cannot parse ${name} as json: ${error}`);
  }
}

// The W3C trace context travels inside the client context and is shown apart from it.
function w3cOf(clientContext) {
  const kept = {};
  if (clientContext && typeof clientContext === 'object' && 'w3c' in clientContext) {
    const source = clientContext.w3c || {};
    delete clientContext.w3c;
    for (const name of W3C) if (typeof source[name] === 'string') kept[name] = source[name];
  }
  return Object.freeze(kept);
}

module.exports = { makeContext };
