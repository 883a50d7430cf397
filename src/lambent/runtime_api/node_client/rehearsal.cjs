// What is gone through before a function is known: loading a handler, and a few invocations of it with a channel that leads nowhere. Code
// is compiled when it is first run, and that is half of what a start takes.

'use strict';

const ROUNDS = 3;
const FIELDS = ['1', '00000000-0000-4000-8000-000000000000', '4102444800000', 'arn:aws:lambda:us-east-1:000000000000:function:f', '', '', '', ''];

async function rehearse() {
  const { Channel, frame } = require('./channel.cjs');
  const { Invoker } = require('./invoke.cjs');
  const { loadHandler } = require('./handler.cjs');
  const logs = require('./logs.cjs');
  require('util').format('%s %o', 'a', { a: [1] }, new Date(0));
  const loaded = await loadHandler(__dirname, 'rehearsal.handler', __dirname);
  // The loader of ES modules is made when it is first used.
  await import('data:text/javascript,export default 0');
  const event = frame(1, FIELDS.join('\n'), '{"key": "value"}', false);
  for (const hasCallbacks of [true, false]) {
    for (let round = 0; round < ROUNDS; round++) {
      await new Promise((resolve) => {
        const channel = Object.assign(Object.create(Channel.prototype), { partial: null, waits() {}, send: resolve });
        const invoker = new Invoker(channel);
        invoker.handler = { ...loaded, hasCallbacks };
        channel.onInvoke = (fields, body) => invoker.begin(fields, body);
        channel.receive(event, event.length);
      });
    }
  }
  logs.current.requestId = undefined;
}

exports.rehearse = rehearse;
exports.handler = async (event, context) => ({ event, left: context.getRemainingTimeInMillis() });
