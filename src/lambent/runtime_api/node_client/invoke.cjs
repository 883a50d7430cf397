// One invocation after the other.
//
// How a handler says that it is done depends on its kind. A promise is done when it settles. Before Node.js 24 a handler may also call
// back, and then the answer waits until the event loop is empty, unless `context.callbackWaitsForEmptyEventLoop` is false;
// `context.done`, `succeed` and `fail` do not wait. A handler that leaves an empty event loop behind without having answered gets null
// for an answer, or, if it is an async function, the error Runtime.NodeJsExit: its promise can never settle.
//
// An answer leaves one turn of the loop after it was given, in one write with NEXT: so a rejection that nobody handled is seen before the
// next event is asked for, and ends the process (status 128; 129 for an exception) without harming another invocation.

'use strict';

const errors = require('./errors.cjs');
const logs = require('./logs.cjs');
const { NEXT_FRAME, frame, kinds, line } = require('./channel.cjs');
const { makeContext } = require('./context.cjs');

const MAX_CAUSE = 1048576;
const NEVER_SETTLED =
  'The Lambda runtime client detected an unexpected Node.js exit code. This is most commonly caused by a Promise that was never settled. ' +
  'For more information, see https://nodejs.org/docs/latest/api/process.html#process_exit_codes';

class Invoker {
  constructor(channel) {
    this.channel = channel;
    this.handler = null; // none yet: initialising
    this.id = null; // "token\nrequest id" of the invocation that is running
    this.isAnswered = false;
    this.whenEmpty = () => process.exit(13); // a module that awaits what never comes
    this.trace = undefined;
    this.store = new InvokeStore();
  }

  // Be told of what nobody else handles.
  watch() {
    process.on('uncaughtException', (error) => this.crash('Uncaught Exception', error, 129));
    process.on('unhandledRejection', (reason, promise) => {
      this.crash('Unhandled Promise Rejection', new errors.UnhandledPromiseRejection(reason, promise), 128);
    });
    process.on('beforeExit', () => {
      const act = this.whenEmpty;
      this.whenEmpty = () => {};
      act();
    });
  }

  start(handler) {
    this.handler = handler;
    if (globalThis.awslambda && !globalThis.awslambda.InvokeStore) globalThis.awslambda.InvokeStore = this.store;
    this.channel.onInvoke = (fields, body) => this.begin(fields, body);
    this.whenEmpty = () => {};
    this.channel.waits(true);
    this.channel.send(NEXT_FRAME);
  }

  failInit(error) {
    this.crash('Uncaught Exception', error, 129);
  }

  begin(fields, body) {
    this.channel.waits(false);
    this.id = fields[0] + '\n' + fields[1];
    this.isAnswered = false;
    this.settle(fields);
    if (this.handler.streams) require('./streaming.cjs').begin(this, fields, body);
    else if (this.handler.hasCallbacks) this.beginWithCallback(fields, body);
    else this.beginWithPromise(fields, body);
  }

  settle(fields) {
    const requestId = (logs.current.requestId = fields[1]);
    const tenantId = (logs.current.tenantId = fields[5] || undefined);
    const trace = fields[4];
    if (trace !== this.trace) {
      if (trace) process.env._X_AMZN_TRACE_ID = trace;
      else delete process.env._X_AMZN_TRACE_ID;
      this.trace = trace;
    }
    this.store.context = { _X_AMZN_REQUEST_ID: requestId, _X_AMZN_TRACE_ID: trace || undefined, _X_AMZN_TENANT_ID: tenantId };
  }

  beginWithPromise(fields, body) {
    this.whenEmpty = () => this.fail(new errors.NodeJsExit(NEVER_SETTLED));
    let result;
    try {
      const { code } = this.handler;
      result = code(JSON.parse(body), makeContext(fields, {}, true));
    } catch (error) {
      this.fail(error);
      return;
    }
    Promise.resolve(result).then((value) => this.succeed(value), (error) => this.fail(error));
  }

  beginWithCallback(fields, body) {
    const id = this.id;
    const once = (act) => (...values) => {
      if (this.id === id && !this.isAnswered) act(...values);
    };
    let waitsForEmptyLoop = true;
    const succeed = once((value) => this.succeed(value));
    const fail = once((error) => this.fail(error === undefined || error === null ? 'handled' : error));
    const done = (error, value) => (error === undefined || error === null ? succeed(value) : fail(error));
    let isCalled = false;
    const callback = once((error, value) => {
      if (isCalled) return;
      isCalled = true;
      if (error !== undefined && error !== null) this.fail(error);
      else if (waitsForEmptyLoop) this.whenEmpty = () => this.succeed(value);
      else this.succeed(value);
    });
    const base = {
      get callbackWaitsForEmptyEventLoop() {
        return waitsForEmptyLoop;
      },
      set callbackWaitsForEmptyEventLoop(value) {
        waitsForEmptyLoop = value;
      },
      succeed,
      fail,
      done,
    };
    this.whenEmpty = () => (this.handler.isAsync ? this.fail(new errors.NodeJsExit(NEVER_SETTLED)) : this.succeed(null));
    try {
      const { code } = this.handler;
      const result = code(JSON.parse(body), makeContext(fields, base, false), callback);
      if (result && typeof result.then === 'function') result.then(succeed, fail);
    } catch (error) {
      callback(error);
    }
  }

  succeed(value) {
    let text;
    try {
      text = JSON.stringify(value === undefined ? null : value);
      if (text === undefined) throw new TypeError('no JSON');
    } catch {
      this.fail(new Error('Unable to stringify response body'));
      return;
    }
    this.answer((andNext) => frame(kinds.RESPONSE, this.id + '\napplication/json', text, andNext));
  }

  fail(error) {
    if (this.isAnswered) return;
    logs.logError('Invoke Error', errors.intoError(error), errors.formatted(errors.intoError(error)));
    this.answer((andNext) => this.failure(error, andNext));
  }

  failure(error, andNext) {
    const payload = errors.payload(error);
    const cause = errors.xrayCause(error);
    const head = `${this.id}\n${line(payload.errorType)}\n${cause.length < MAX_CAUSE ? cause : ''}`;
    return frame(kinds.ERROR, head, JSON.stringify(payload), andNext);
  }

  // Send what `make` makes, one turn later.
  answer(make) {
    if (this.isAnswered) return;
    this.isAnswered = true;
    this.whenEmpty = () => {};
    this.pending = make;
    setImmediate(() => {
      this.pending = null;
      this.next(make(true));
    });
  }

  // Send `bytes`, which end with NEXT, and wait for an event.
  next(bytes) {
    this.id = null;
    this.whenEmpty = () => {};
    this.channel.waits(true);
    this.channel.send(bytes);
  }

  // Tell whoever it concerns, and end the process.
  crash(title, error, status) {
    logs.logError(title, errors.intoError(error), errors.formatted(errors.intoError(error)));
    const leave = () => process.exit(status);
    if (this.handler === null) {
      const payload = errors.payload(error);
      this.channel.send(frame(kinds.INIT_ERROR, line(payload.errorType), JSON.stringify(payload), false), leave);
    } else if (this.id === null) {
      leave();
    } else if (this.pending && this.handler.hasCallbacks) {
      this.channel.send(this.pending(false), leave); // the answer was first
    } else if (this.failStream) {
      this.failStream(error, leave);
    } else {
      this.channel.send(this.failure(error, false), leave);
    }
  }
}

// What @aws/lambda-invoke-store finds as `awslambda.InvokeStore` and asks for the current invocation.
class InvokeStore {
  constructor() {
    this.context = undefined;
    this.own = undefined;
  }

  run(context, act) {
    this.own = context;
    return act();
  }

  getContext() {
    return this.own || this.context;
  }

  get(key) {
    return (this.getContext() || {})[key];
  }

  set(key, value) {
    if (String(key).startsWith('_X_AMZN_')) throw new Error(`Cannot modify protected Lambda context field: ${String(key)}`);
    const context = this.getContext();
    if (context) context[key] = value;
  }

  getRequestId() {
    return this.get('_X_AMZN_REQUEST_ID') || '-';
  }

  getXRayTraceId() {
    return this.get('_X_AMZN_TRACE_ID');
  }

  getTenantId() {
    return this.get('_X_AMZN_TENANT_ID');
  }

  hasContext() {
    return this.getContext() !== undefined;
  }
}

module.exports = { Invoker };
