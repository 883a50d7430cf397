// The Node.js runtime inside the sandbox: what `node` is started with. Runs on Node.js 16 to 26, and stands alone: no packages.
//
// Seen as /var/runtime/lambent_node_client. One file an idea:
//
//   channel.cjs    frames over descriptor 3 (the protocol is told in runtime_api/frames.py)
//   logs.cjs       the console as on AWS, text and JSON
//   errors.cjs     the runtime's own errors, and errors as payloads, log records and X-Ray causes
//   handler.cjs    from "path/file.name" to a function, and what AWS offers as the global `awslambda`
//   context.cjs    the context object
//   invoke.cjs     one invocation after the other: promises, callbacks, the empty event loop, crashes
//   streaming.cjs  handlers that stream; loaded when there is one
//   heap.cjs       how much garbage may lie about, by the memory of the function
//   rehearsal.cjs  what is gone through ahead of time
//
// Started as it is, the environment of the process is the function's. With --warm it was started before its function was known: it loads
// what most functions need, then waits for one object on descriptor 4 that tells the environment and the handler.

'use strict';

const ASSIGNMENT = 4;
const OURS = /^--no-experimental-(require|detect)-module( --no-experimental-detect-module)?$/; // NODE_OPTIONS by default (runtimes/nodejs.py)

const fs = require('fs');

if (process.argv[2] === '--warm') warm();
else run(process.env._HANDLER || '', null);

// Load and go through what an assignment will need, so that it finds everything there and compiled.
async function warm() {
  for (const name of [
    'assert', 'async_hooks', 'crypto', 'dns', 'events', 'http', 'https', 'module', 'net', 'os', 'path', 'perf_hooks', 'querystring',
    'stream', 'string_decoder', 'timers', 'tls', 'url', 'util', 'zlib',
  ]) require(name);
  const { Channel } = require('./channel.cjs');
  require('./streaming.cjs');
  await require('./rehearsal.cjs').rehearse();
  require('./heap.cjs').collect();
  become(new Channel());
}

function become(channel) {
  const text = fs.readFileSync(ASSIGNMENT, 'utf8');
  if (text === '') process.exit(0); // nobody will come
  fs.closeSync(ASSIGNMENT);
  const { env, handler } = JSON.parse(text);
  for (const name of Object.keys(process.env)) if (!(name in env)) delete process.env[name];
  for (const name of Object.keys(env)) if (process.env[name] !== env[name]) process.env[name] = env[name];
  process.chdir(process.env.LAMBDA_TASK_ROOT || '/var/task'); // what it was before the code was mounted is remembered otherwise
  require('module').Module._initPaths(); // NODE_PATH
  run(handler, channel);
}

function run(handler, channel) {
  if (OURS.test(process.env.NODE_OPTIONS || '')) delete process.env.NODE_OPTIONS;
  const env = process.env;
  const runtimeDir = env.LAMBDA_RUNTIME_DIR || '/var/runtime';
  require('./heap.cjs').fit(env);
  process.argv = [process.argv[0], runtimeDir + '/index.mjs'];
  require('./logs.cjs').patchConsole(env);
  const { Channel } = require('./channel.cjs');
  const { Invoker } = require('./invoke.cjs');
  const invoker = new Invoker(channel || new Channel());
  invoker.watch();
  const { loadHandler } = require('./handler.cjs');
  loadHandler(env.LAMBDA_TASK_ROOT || process.cwd(), handler, runtimeDir).then(
    (loaded) => invoker.start(loaded),
    (error) => invoker.failInit(error),
  );
}
