// The sample of the Node.js family.
const fs = require('fs');
let count = 0;

if (process.env.FAIL_INIT) throw new RangeError('closed today');

exports.handler = async (event, context) => {
  count += 1;
  switch (event.do) {
    case 'count': return count;
    case 'fail': throw new RangeError('oh dear');
    case 'exit': return process.exit(event.code);
    case 'kill': process.kill(process.pid, 'SIGKILL'); return new Promise(() => setTimeout(() => {}, 60000));
    case 'sleep': return new Promise((resolve) => setTimeout(resolve, 60000));
    case 'memory': { const hoard = []; for (;;) hoard.push(Buffer.alloc(10000000, 1)); }
    case 'log': for (const word of ['one', 'two', 'three']) process.stdout.write(`line ${word}\n`); return event;
    case 'context': return {
      id: context.awsRequestId,
      arn: context.invokedFunctionArn,
      left: context.getRemainingTimeInMillis(),
      name: context.functionName,
      version: context.functionVersion,
      memory: Number(context.memoryLimitInMB),
      group: context.logGroupName,
      stream: context.logStreamName,
      client: context.clientContext ? context.clientContext.custom : null,
      trace: process.env._X_AMZN_TRACE_ID,
    };
    case 'env': return Object.fromEntries(JSON.parse(process.env.SHOWN).map((name) => [name, process.env[name] ?? null]));
    case 'layer': return [fs.readFileSync('/opt/data.txt', 'utf8'), require('layered').WORD];
    case 'keep': fs.writeFileSync('/tmp/kept', 'kept'); return event;
    case 'kept': return fs.existsSync('/tmp/kept');
    default: return event;
  }
};
