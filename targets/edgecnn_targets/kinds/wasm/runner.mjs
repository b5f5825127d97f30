// Runs one .onnx file in ONNX Runtime Web, in WebAssembly as in a browser. The messages are those of runner.py:
// a line of JSON, of which "bytes" says how many raw bytes follow; "open", "run" and "time" are answered. "heap" is all of
// WebAssembly's memory, which only grows.

import * as ort from "onnxruntime-web";

const ONNX_TYPES = { float32: "tensor(float)", uint8: "tensor(uint8)", int8: "tensor(int8)" };
const TYPES = { float32: Float32Array, uint8: Uint8Array, int8: Int8Array };
let network = null;
console.log = console.error; // stdout carries answers
let memory = null;
WebAssembly.Memory = class extends WebAssembly.Memory {
  constructor(descriptor) {
    super(descriptor);
    memory = this;
  }
};

const answers = {
  async open(request, raw) {
    ort.env.wasm.numThreads = request.threads;
    const session = await ort.InferenceSession.create(raw, { executionProviders: ["wasm"] });
    const port = (p) => ({ name: p.name, shape: p.shape, type: ONNX_TYPES[p.type] ?? p.type });
    const fixed = (p) => {
      const shape = [Number.isInteger(p.shape[0]) ? p.shape[0] : 1, ...p.shape.slice(1)];
      return { name: p.name, type: p.type, shape, size: shape.reduce((a, b) => a * b, 1) };
    };
    network = { session, inputs: session.inputMetadata.map(fixed), outputs: session.outputMetadata.map((p) => p.name) };
    return [{ inputs: session.inputMetadata.map(port), outputs: session.outputMetadata.map(port) }, []];
  },

  async run(request, raw) {
    const made = [];
    for (const feeds of inferences(raw)) made.push(...(await infer(feeds)));
    return [{}, made];
  },

  async time(request, raw) {
    const [feeds] = inferences(raw);
    const ns = [];
    for (let k = 0; k < request.warmup + request.runs; k++) {
      const start = process.hrtime.bigint();
      await infer(feeds);
      ns.push(Number(process.hrtime.bigint() - start));
    }
    return [{ ns: ns.slice(request.warmup), heap: memory?.buffer.byteLength ?? null }, []];
  },
};

function* inferences(raw) {
  for (let at = 0; at < raw.length; ) {
    const feeds = {};
    for (const { name, type, shape, size } of network.inputs) {
      const bytes = size * TYPES[type].BYTES_PER_ELEMENT;
      const copy = raw.slice(at, at + bytes); // aligned for every type
      feeds[name] = new ort.Tensor(type, new TYPES[type](copy.buffer), shape);
      at += bytes;
    }
    yield feeds;
  }
}

async function infer(feeds) {
  const made = await network.session.run(feeds);
  return network.outputs.map((name) => Buffer.from(made[name].data.buffer, made[name].data.byteOffset, made[name].data.byteLength));
}

async function* messages(stream) {
  let head = null;
  let pieces = [];
  let size = 0;
  for await (const piece of stream) {
    pieces.push(piece);
    size += piece.length;
    if (head !== null && size < head.bytes) continue; // joined once, when all is there
    let held = Buffer.concat(pieces, size);
    for (;;) {
      if (head === null) {
        const end = held.indexOf(10);
        if (end < 0) break;
        head = JSON.parse(held.subarray(0, end));
        held = held.subarray(end + 1);
      }
      if (held.length < head.bytes) break;
      yield [head, new Uint8Array(held.subarray(0, head.bytes))]; // a copy: aligned for every type
      held = held.subarray(head.bytes);
      head = null;
    }
    pieces = [held];
    size = held.length;
  }
}

for await (const [request, raw] of messages(process.stdin)) {
  let answer;
  try {
    answer = await answers[request.do](request, raw);
  } catch (error) {
    answer = [{ error: `${error.message ?? error}`.split(/\s+/).join(" ") }, []];
  }
  const payload = Buffer.concat(answer[1]);
  process.stdout.write(`${JSON.stringify({ ...answer[0], bytes: payload.length })}\n`);
  process.stdout.write(payload);
}
