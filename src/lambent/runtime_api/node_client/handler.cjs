// From "path/file.name" to a function (contract 03 section 7).
//
// The file is looked for without an extension, then as .js, .mjs and .cjs (and, where Node.js strips types, .ts, .mts and .cts); last, the
// name is resolved as `require` would. A .js is a CommonJS module unless the nearest package.json says "type": "module".
//
// Packages of layers and of the runtime are found by `require` through NODE_PATH, and by `import` since links in the folders above the
// function lead to them (runtimes/nodejs.py); the folder of a layer that is for one version only needs a hook.

'use strict';

const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');
const { pathToFileURL } = require('url');
const errors = require('./errors.cjs');

const MAJOR = parseInt(process.versions.node, 10);
const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');
const NO_CALLBACKS =
  'ERROR: AWS Lambda has removed support for callback-based function handlers starting with Node.js 24. You need to modify this ' +
  'function to use a supported handler signature to use Node.js 24 or later. For more information see ' +
  'https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html.';

// {code, isAsync, streams, highWaterMark, takesCallback} of the handler that `name` names below `root`.
async function loadHandler(root, name, runtimeDir) {
  offerGlobals();
  hookVersionedLayers();
  if (name.includes('..')) {
    throw new errors.MalformedHandlerName(
      `'${name}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`,
    );
  }
  const base = path.basename(name);
  const folder = name.slice(0, name.lastIndexOf(base));
  const dot = base.indexOf('.');
  if (dot < 0) throw new errors.MalformedHandlerName('Bad handler');
  // Errors name who required what; the parent is the runtime, by the name that it has on AWS.
  const load = createRequire(path.join(runtimeDir, 'index.mjs'));
  const module = await loadModule(load, root, folder, base.slice(0, dot));
  return describe(find(module, base.slice(dot + 1), name));
}

async function loadModule(load, root, folder, name) {
  const file = path.resolve(root, folder, name);
  try {
    for (const [extension, isModule] of ways(file)) {
      if (!isFile(file + extension)) continue;
      return isModule ? await import(pathToFileURL(file + extension).href) : load(file + extension);
    }
    return load(load.resolve(name, { paths: [root, path.resolve(root, folder)] }));
  } catch (error) {
    if (error instanceof SyntaxError) {
      const wrapped = new errors.UserCodeSyntaxError(String(error));
      wrapped.stack = error.stack;
      throw wrapped;
    }
    if (error && error.code === 'MODULE_NOT_FOUND') throw new errors.ImportModuleError(String(error));
    throw error;
  }
}

function* ways(file) {
  yield ['', false];
  const isModule = isInModulePackage(path.dirname(file));
  yield ['.js', isModule];
  yield ['.mjs', true];
  yield ['.cjs', false];
  if (MAJOR >= 24) {
    yield ['.ts', isModule];
    yield ['.mts', true];
    yield ['.cts', false];
  }
}

function isFile(file) {
  const found = fs.statSync(file, { throwIfNoEntry: false });
  return found !== undefined && found.isFile();
}

function isInModulePackage(folder) {
  for (let at = folder; !at.endsWith('/node_modules'); at = path.dirname(at)) {
    const description = path.join(at, 'package.json');
    let text;
    try {
      text = fs.readFileSync(description, 'utf8');
    } catch {
      if (at === path.dirname(at)) return false;
      continue;
    }
    try {
      return JSON.parse(text).type === 'module';
    } catch (error) {
      console.warn(`${description} cannot be read, it will be ignored for ES module detection purposes.`, error);
      return false;
    }
  }
  return false;
}

function find(module, names, whole) {
  let found = follow(module, names);
  if (!found && module && module.default) found = follow(module.default, names);
  if (!found) throw new errors.HandlerNotFound(`${whole} is undefined or not exported`);
  if (typeof found !== 'function') throw new errors.HandlerNotFound(`${whole} is not a function`);
  return found;
}

function follow(object, names) {
  return names.split('.').reduce((nested, key) => (nested === undefined || nested === null ? undefined : nested[key]), object);
}

function describe(code) {
  const mode = code[STREAMING];
  if (mode && mode !== 'response') throw new errors.MalformedStreamingHandler('Only response streaming is supported.');
  const mark = parseInt(code[HIGH_WATER_MARK], 10);
  const streams = mode === 'response';
  if (MAJOR >= 24 && code.length >= 3 && !streams) throw new errors.CallbackHandlerDeprecated(NO_CALLBACKS);
  const isAsync = Boolean(code.constructor && code.constructor.name === 'AsyncFunction');
  return { code, isAsync, streams, highWaterMark: Number.isNaN(mark) ? undefined : mark, hasCallbacks: MAJOR < 24 };
}

function hookVersionedLayers() {
  const folder = `/opt/nodejs/node${MAJOR}`;
  const { registerHooks } = require('module');
  if (!registerHooks || !fs.existsSync(folder + '/node_modules')) return;
  const parentURL = pathToFileURL(folder + '/index.mjs').href;
  registerHooks({
    resolve(specifier, context, next) {
      try {
        return next(specifier, context);
      } catch (error) {
        if (error.code !== 'ERR_MODULE_NOT_FOUND' || !/^[@\w][^:]*$/.test(specifier)) throw error;
        return next(specifier, { ...context, parentURL });
      }
    },
  });
}

// The global `awslambda`, which function authors need no package for.
function offerGlobals() {
  const refused = process.env.AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA;
  if (refused === '1' || refused === 'true') return;
  globalThis.awslambda = {
    ...globalThis.awslambda,
    streamifyResponse(handler, options) {
      handler[STREAMING] = 'response';
      if (options && typeof options.highWaterMark === 'number') handler[HIGH_WATER_MARK] = Math.trunc(options.highWaterMark);
      return handler;
    },
    HttpResponseStream: {
      from: (stream, prelude) => require('./streaming.cjs').withPrelude(stream, prelude),
    },
  };
}

module.exports = { loadHandler };
