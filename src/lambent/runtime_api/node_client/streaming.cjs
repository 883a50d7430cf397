// Handlers that stream (contract 02 section 3 and 03 section 7): `handler(event, responseStream, context)`.
//
// The stream is an ordinary Writable over frames: what is written leaves at once, and a slow receiver shows as `false` from `write` and a
// `drain` later. The first write settles the content type. An error before the first byte is an ordinary error; later it ends the stream.

'use strict';

const { Writable } = require('stream');
const errors = require('./errors.cjs');
const logs = require('./logs.cjs');
const { NEXT_FRAME, frame, kinds, line } = require('./channel.cjs');
const { makeContext } = require('./context.cjs');

const MAX_CHUNK = 1048576;
const PRELUDE_TYPE = 'application/vnd.awslambda.http-integration-response';

class ResponseStream extends Writable {
  constructor(channel, id, highWaterMark) {
    super(highWaterMark === undefined ? {} : { highWaterMark });
    this._channel = channel;
    this._id = id;
    this._token = id.slice(0, id.indexOf('\n'));
    this._contentType = 'application/octet-stream';
    this._isBegun = false; // the first write settles the content type
    this._isStarted = false; // and is told to the node with the first bytes
    this._onBeforeFirstWrite = undefined;
  }

  setContentType(type) {
    if (this._isBegun) throw new errors.InvalidStreamingOperation('Cannot set content-type, too late.');
    this._contentType = type;
  }

  write(chunk, encoding, callback) {
    this._begin();
    const isPlain = typeof chunk === 'string' || chunk instanceof Uint8Array || chunk === null || chunk === undefined;
    return super.write(isPlain ? chunk : JSON.stringify(chunk), encoding, callback);
  }

  end(chunk, encoding, callback) {
    if (!this._isBegun && !this.destroyed && !this.writableEnded) this._begin();
    if (chunk === undefined || chunk === null || typeof chunk === 'function') return super.end(chunk, encoding, callback);
    const isPlain = typeof chunk === 'string' || chunk instanceof Uint8Array;
    return super.end(isPlain ? chunk : JSON.stringify(chunk), encoding, callback);
  }

  _begin() {
    if (this._isBegun) return;
    this._isBegun = true;
    const before = this._onBeforeFirstWrite;
    if (typeof before === 'function') before((bytes) => super.write(bytes));
  }

  _write(chunk, _, callback) {
    this._send([chunk], callback);
  }

  _writev(entries, callback) {
    this._send(entries.map((entry) => entry.chunk), callback);
  }

  _send(chunks, callback) {
    const parts = this._start();
    for (const chunk of chunks) {
      for (let offset = 0; offset < chunk.length; offset += MAX_CHUNK) {
        parts.push(frame(kinds.CHUNK, this._token, chunk.subarray(offset, offset + MAX_CHUNK), false));
      }
    }
    if (parts.length) this._channel.send(parts.length === 1 ? parts[0] : Buffer.concat(parts), callback);
    else callback();
  }

  // The frames that must come before any other of this stream.
  _start() {
    if (this._isStarted) return [];
    this._isStarted = true;
    return [frame(kinds.RESPONSE_START, `${this._id}\n${line(this._contentType)}`, '', false)];
  }

  // The frames that end it, with `error` if it failed.
  _last(error) {
    const payload = error === undefined ? null : errors.payload(error);
    const head = `${this._id}\n${payload ? line(payload.errorType) : ''}`;
    return [...this._start(), frame(kinds.RESPONSE_END, head, payload ? JSON.stringify(payload) : '', false)];
  }
}

// Begin an invocation of a streaming handler.
function begin(invoker, fields, body) {
  const { handler } = invoker;
  const stream = new ResponseStream(invoker.channel, invoker.id, handler.highWaterMark);
  let waitsForEmptyLoop = true;
  const base = handler.hasCallbacks
    ? {
        get callbackWaitsForEmptyEventLoop() {
          return waitsForEmptyLoop;
        },
        set callbackWaitsForEmptyEventLoop(value) {
          waitsForEmptyLoop = value;
        },
      }
    : {};
  let isOver = false;
  const finish = (error) => {
    if (isOver) return;
    isOver = true;
    invoker.failStream = null;
    invoker.whenEmpty = () => {};
    if (error !== undefined) report(error);
    setImmediate(() => end(invoker, stream, error, handler.hasCallbacks && waitsForEmptyLoop && error === undefined));
  };
  stream.on('error', () => {}); // the handler hears of it where it writes or pipes
  invoker.failStream = (error, leave) => {
    isOver = true;
    invoker.channel.send(Buffer.concat(stream._isStarted ? stream._last(error) : [invoker.failure(error, false)]), leave);
  };
  invoker.whenEmpty = () => finish(new Error('Response stream is not finished.'));
  follow(handler.code, stream, JSON.parse(body), makeContext(fields, base, !handler.hasCallbacks)).then(finish, (error) =>
    finish(error === undefined ? new Error('undefined') : error),
  );
}

async function follow(code, stream, event, context) {
  const running = code(event, stream, context);
  if (!running || typeof running.then !== 'function') throw new Error('Streaming does not support non-async handlers.');
  if ((await running) !== undefined) console.warn('Streaming handlers ignore return values.');
  if (!stream.writableFinished && !stream.destroyed) {
    await new Promise((resolve) => stream.once('finish', resolve).once('close', resolve));
  }
  if (!stream.writableFinished) throw new Error('Response stream is not finished.');
}

function report(error) {
  const shown = errors.intoError(error);
  logs.logError('Invoke Error', shown, errors.formatted(shown));
}

function end(invoker, stream, error, waits) {
  if (invoker.id !== stream._id) return;
  if (error !== undefined && !stream._isStarted) {
    invoker.next(invoker.failure(error, true));
  } else if (waits) {
    // Before Node.js 24 the next event is asked for when the event loop is empty.
    invoker.channel.send(Buffer.concat(stream._last(error)));
    invoker.isAnswered = true;
    invoker.whenEmpty = () => invoker.next(NEXT_FRAME);
  } else {
    invoker.next(Buffer.concat([...stream._last(error), NEXT_FRAME]));
  }
}

// What `awslambda.HttpResponseStream.from` does: before the first byte come the prelude as JSON and eight NUL bytes.
function withPrelude(stream, prelude) {
  stream.setContentType(PRELUDE_TYPE);
  const text = JSON.stringify(prelude);
  stream._onBeforeFirstWrite = (write) => {
    write(text);
    write(new Uint8Array(8));
  };
  return stream;
}

module.exports = { begin, withPrelude };
