// The console as on AWS (contract 03 section 8): every record is one line on standard output, with its time, request and level.
//
// Text records are `time \t request id \t LEVEL \t message`, JSON records are objects; AWS_LAMBDA_LOG_LEVEL leaves out what is below it.
// Where the platform gives a descriptor for framed records (_LAMBDA_TELEMETRY_LOG_FD) a record of several lines stays one record; else line
// feeds inside become carriage returns. Written with a blocking write: what a function printed is in the pipe before its answer is in the
// channel.

'use strict';

const fs = require('fs');

const LEVELS = { TRACE: 1, DEBUG: 2, INFO: 3, WARN: 4, ERROR: 5, FATAL: 6 };
const METHODS = { trace: 'TRACE', debug: 'DEBUG', info: 'INFO', warn: 'WARN', error: 'ERROR', fatal: 'FATAL' };

const current = { requestId: undefined, tenantId: undefined };
let isJson = false;
let format;
let nap;
let frames = -1;

function patchConsole(env) {
  format = require('util').format;
  isJson = (env.AWS_LAMBDA_LOG_FORMAT || '').toUpperCase() === 'JSON';
  if (/^\d+$/.test(env._LAMBDA_TELEMETRY_LOG_FD || '')) frames = Number(env._LAMBDA_TELEMETRY_LOG_FD);
  delete env._LAMBDA_TELEMETRY_LOG_FD;
  const least = LEVELS[(env.AWS_LAMBDA_LOG_LEVEL || '').toUpperCase()] || LEVELS.TRACE;
  for (const [method, level] of Object.entries(METHODS)) {
    console[method] = LEVELS[level] < least ? () => {} : (...values) => record(level, values);
  }
  console.log = console.info;
  for (const name of ['stdout', 'stderr']) makeBlocking(name);
}

// What a function writes to process.stdout itself must not linger in its buffer either. The stream is made when it is first asked for.
function makeBlocking(name) {
  const { get, ...rest } = Object.getOwnPropertyDescriptor(process, name);
  const settle = () => {
    const stream = get.call(process);
    if (stream._handle && stream._handle.setBlocking) stream._handle.setBlocking(true);
    Object.defineProperty(process, name, { ...rest, get });
    return stream;
  };
  Object.defineProperty(process, name, { ...rest, get: settle });
}

function record(level, values) {
  const time = new Date().toISOString();
  const text = isJson ? json(time, level, values) : `${time}\t${current.requestId}\t${level}\t${format(...values)}`;
  if (frames >= 0) return writeAll(frames, frame(level, Buffer.from(text)));
  writeAll(1, Buffer.from((text.includes('\n') ? text.replace(/\n/g, '\r') : text) + '\n'));
}

// Type, length, microseconds since the epoch, record: contract 03 section 8.
function frame(level, text) {
  const head = Buffer.alloc(16);
  head.writeUInt32BE((0xa55a0000 | (LEVELS[level] << 2) | (isJson ? 2 : 3)) >>> 0, 0);
  head.writeUInt32BE(text.length, 4);
  head.writeBigUInt64BE(BigInt(Date.now()) * 1000n, 8);
  return Buffer.concat([head, text]);
}

function json(time, level, values) {
  const entry = { timestamp: time, level, requestId: current.requestId };
  if (current.tenantId) entry.tenantId = current.tenantId;
  if (values.length === 1) {
    entry.message = values[0];
    try {
      return JSON.stringify(entry, (_, value) => (value instanceof Error ? described(value) : value));
    } catch {
      entry.message = format(values[0]); // it goes round in circles, say
      return JSON.stringify(entry);
    }
  }
  entry.message = format(...values);
  const error = values.find((value) => value instanceof Error);
  if (error) {
    const { errorType, errorMessage, stackTrace } = described(error);
    Object.assign(entry, { errorType, errorMessage, stackTrace });
  }
  return JSON.stringify(entry);
}

function described(error) {
  const stackTrace = typeof error.stack === 'string' ? error.stack.split('\n') : error.stack;
  return { errorType: (error.constructor && error.constructor.name) || 'UnknownError', errorMessage: error.message, stackTrace, ...error };
}

// An error of the function, as AWS's runtime prints it.
function logError(title, error, formatted) {
  if (isJson) console.error(error);
  else console.error(title, formatted);
}

function writeAll(descriptor, left) {
  while (left.length) {
    try {
      left = left.subarray(fs.writeSync(descriptor, left, 0, left.length));
    } catch (error) {
      if (error.code !== 'EAGAIN') return; // nobody reads any more
      // Something has made the pipe non-blocking (process.stdout does): whoever prints faster than is read waits, as with any pipe.
      nap = nap || new Int32Array(new SharedArrayBuffer(4));
      Atomics.wait(nap, 0, 0, 1);
    }
  }
}

module.exports = { current, logError, patchConsole };
