// How V8 spends memory, by the memory of the function.
//
// V8 decides at its own start how far the heap may grow between two collections, by the memory of the machine. On AWS the machine is as
// large as the function. Here it is the host's, and an interpreter that waits for a function does not know yet how large that one will be:
// left alone it would let a heap of 40 MB grow to 512 MB before it collects anything, and a function of 256 MB would be killed for garbage.
//
// What can still be changed later is the pace, and it is set to what V8 would have chosen (MaxGrowingFactor of heap-controller.cc, and the
// size of a semi-space in the documentation of --max-semi-space-size). One collection ahead of time ends the first, generous phase.

'use strict';

const OLD_SHARE = 0.5; // of the memory is what V8 takes for old objects
const [SMALL_MB, LARGE_MB] = [256, 2048]; // old spaces: below the one the heap grows by 30 % at a time, up to the other by 100 %
const FEW_MB = 512; // up to here young objects have the least space that there is

// For an interpreter that waits.
function collect() {
  require('v8');
  if (typeof gc === 'function') gc();
}

function fit(env) {
  const memory = Number(env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE);
  const old = memory * OLD_SHARE;
  if (!(old > 0 && old < LARGE_MB)) return;
  const { setFlagsFromString } = require('v8');
  const percent = 30 + 70 * Math.max(0, old - SMALL_MB) / (LARGE_MB - SMALL_MB);
  setFlagsFromString(`--heap-growing-percent=${Math.round(percent)}`);
  const chosen = `${process.execArgv.join(' ')} ${env.NODE_OPTIONS || ''}`;
  if (memory <= FEW_MB && !/semi.space/.test(chosen)) setFlagsFromString('--semi-space-growth-factor=1');
}

module.exports = { collect, fit };
