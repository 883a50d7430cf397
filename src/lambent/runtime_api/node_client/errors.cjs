// Errors: the runtime's own, which AWS names Runtime.Something, and how any thrown value becomes a payload (contract 02 section 2.1), a
// line of the log, or the cause that X-Ray is told.

'use strict';

class RuntimeError extends Error {}

// A class of error whose type, as clients see it, is `Runtime.${name}`.
function named(name) {
  const Named = { [name]: class extends RuntimeError {} }[name];
  Object.defineProperty(Named.prototype, 'name', { value: 'Runtime.' + name, configurable: true, writable: true });
  return Named;
}

const ImportModuleError = named('ImportModuleError');
const HandlerNotFound = named('HandlerNotFound');
const MalformedHandlerName = named('MalformedHandlerName');
const UserCodeSyntaxError = named('UserCodeSyntaxError');
const MalformedStreamingHandler = named('MalformedStreamingHandler');
const InvalidStreamingOperation = named('InvalidStreamingOperation');
const CallbackHandlerDeprecated = named('CallbackHandlerDeprecated');
const NodeJsExit = named('NodeJsExit');

class UnhandledPromiseRejection extends named('UnhandledPromiseRejection') {
  constructor(reason, promise) {
    super(reason);
    this.reason = reason;
    this.promise = promise;
  }
}

function isErrorLike(value) {
  return (
    value instanceof Error ||
    require('util').types.isNativeError(value) ||
    (value && [value.name, value.message, value.stack].every((text) => text && typeof text === 'string'))
  );
}

function escaped(text) {
  return typeof text === 'string' ? text.replace(/\x7F/g, '%7F') : text;
}

// {errorType, errorMessage, trace} of whatever was thrown.
function payload(thrown) {
  try {
    if (isErrorLike(thrown)) {
      const trace = typeof thrown.stack === 'string' ? escaped(thrown.stack).split('\n') : [];
      return { errorType: escaped(thrown.name), errorMessage: escaped(thrown.message), trace };
    }
    return { errorType: typeof thrown, errorMessage: String(thrown), trace: [] };
  } catch {
    return {
      errorType: 'handled',
      errorMessage:
        'callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack',
      trace: [],
    };
  }
}

function intoError(thrown) {
  if (thrown instanceof Error) return thrown;
  try {
    return new Error(thrown);
  } catch {
    return new Error(payload(thrown).errorMessage);
  }
}

// For the log: with everything that hangs on the error, also on errors inside it. Begins with a tab, as on AWS.
function formatted(error) {
  try {
    return '\t' + JSON.stringify(error, (_, value) => (value instanceof Error ? withProperties(value) : value));
  } catch {
    return '\t' + JSON.stringify(payload(error));
  }
}

function withProperties(error) {
  const { name, message, code, stack } = error;
  const all = { errorType: name, errorMessage: message, code, ...error };
  if (typeof stack === 'string') all.stack = stack.split('\n');
  return all;
}

// What X-Ray shows of the error, as JSON; '' if there is nothing to show.
function xrayCause(error) {
  try {
    const stack = String(error.stack || '').split('\n').slice(1).map(frameOf);
    return JSON.stringify({
      working_directory: process.cwd(),
      exceptions: [{ type: error.name, message: error.message, stack }],
      paths: [...new Set(stack.map((entry) => entry.path))],
    });
  } catch {
    return '';
  }
}

// "    at label (path:line:column)", or without a label
function frameOf(text) {
  const words = text.trim().replace(/[()]/g, '').split(' ').slice(1);
  const [path, line] = (words.pop() || '').split(':');
  return { path, line: parseInt(line, 10), label: words.join(' ') || 'anonymous' };
}

module.exports = {
  CallbackHandlerDeprecated,
  HandlerNotFound,
  ImportModuleError,
  InvalidStreamingOperation,
  MalformedHandlerName,
  MalformedStreamingHandler,
  NodeJsExit,
  UnhandledPromiseRejection,
  UserCodeSyntaxError,
  formatted,
  intoError,
  payload,
  xrayCause,
};
