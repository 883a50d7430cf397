// Frames over the stream socket at descriptor 3.
//
// Reading is the event loop's: between invocations the loop must turn, since a function may hold timers, connections or extensions of
// its own. The socket keeps the loop alive only while an event is waited for, so that "the event loop is empty" keeps its meaning for a
// running handler. Writing does not wait for the loop: a small answer leaves in one system call together with the NEXT that follows. Only
// what the kernel does not take at once goes through the stream, in order.

'use strict';

const fs = require('fs');

const FD = 3;
const HEADER = 9; // type u8, head length u32, body length u32
const INVOKE = 0x01;
const kinds = { NEXT: 0x11, RESPONSE: 0x12, ERROR: 0x13, INIT_ERROR: 0x14, RESPONSE_START: 0x15, CHUNK: 0x16, RESPONSE_END: 0x17 };
const NEXT_FRAME = Buffer.from([kinds.NEXT, 0, 0, 0, 0, 0, 0, 0, 0]);

class Channel {
  constructor() {
    this.onInvoke = () => {};
    this.onWritten = [];
    this.partial = null; // a frame that did not arrive in one piece
    this.filled = 0;
    this.socket = null;
    const net = require('net');
    const buffer = Buffer.alloc(65536); // its pages are there before the first event
    const callback = (size, bytes) => {
      this.receive(bytes, size);
      return true;
    };
    this.socket = new net.Socket({ fd: FD, readable: true, writable: true, onread: { buffer, callback } });
    this.socket.on('end', gone).on('error', gone);
    this.socket.resume();
    this.socket.unref();
  }

  // Let the loop live, or end, without an event.
  waits(isWaiting) {
    if (isWaiting) this.socket.ref();
    else this.socket.unref();
  }

  receive(bytes, size) {
    let offset = 0;
    while (offset < size) {
      if (this.partial === null) {
        if (size - offset >= HEADER) {
          const total = HEADER + bytes.readUInt32BE(offset + 1) + bytes.readUInt32BE(offset + 5);
          if (size - offset >= total) {
            this.deliver(bytes, offset);
            offset += total;
            continue;
          }
          this.partial = Buffer.allocUnsafe(total);
        } else {
          this.partial = Buffer.allocUnsafe(HEADER);
        }
        this.filled = 0;
      }
      offset += this.fill(bytes, offset, size);
    }
  }

  fill(bytes, offset, size) {
    const taken = bytes.copy(this.partial, this.filled, offset, Math.min(size, offset + this.partial.length - this.filled));
    this.filled += taken;
    if (this.filled < this.partial.length) return taken;
    const total = HEADER + this.partial.readUInt32BE(1) + this.partial.readUInt32BE(5);
    if (total > this.filled) {
      const larger = Buffer.allocUnsafe(total);
      this.partial.copy(larger, 0, 0, this.filled);
      this.partial = larger;
    } else {
      const whole = this.partial;
      this.partial = null;
      this.deliver(whole, 0);
    }
    return taken;
  }

  deliver(bytes, offset) {
    if (bytes[offset] !== INVOKE) throw new Error('unexpected frame ' + bytes[offset] + ' from the platform');
    const head = offset + HEADER;
    const body = head + bytes.readUInt32BE(offset + 1);
    const end = body + bytes.readUInt32BE(offset + 5);
    const fields = bytes.utf8Slice(head, body).split('\n');
    if (fields.length > 8) fields[7] = fields.slice(7).join('\n'); // only the last may hold line feeds
    this.onInvoke(fields, bytes.utf8Slice(body, end));
  }

  // Write; `done` is called once the kernel has it all. Gives false where the other side is slow.
  send(bytes, done) {
    let sent = 0;
    if (this.socket.writableLength === 0) {
      try {
        sent = fs.writeSync(FD, bytes, 0, bytes.length);
      } catch (error) {
        if (error.code !== 'EAGAIN') gone();
      }
    }
    if (sent === bytes.length) {
      if (done) done();
      return true;
    }
    const rest = sent ? bytes.subarray(sent) : bytes;
    return this.socket.write(rest, done);
  }
}

// One frame; `body` is a string or bytes. With `andNext` the NEXT frame follows in the same buffer.
function frame(kind, head, body, andNext) {
  const isText = typeof body === 'string';
  const headSize = Buffer.byteLength(head);
  const bodySize = isText ? Buffer.byteLength(body) : body.length;
  const size = HEADER + headSize + bodySize;
  const bytes = Buffer.allocUnsafe(andNext ? size + HEADER : size);
  bytes[0] = kind;
  bytes.writeUInt32BE(headSize, 1);
  bytes.writeUInt32BE(bodySize, 5);
  bytes.utf8Write(head, HEADER);
  if (isText) bytes.utf8Write(body, HEADER + headSize);
  else bytes.set(body, HEADER + headSize);
  if (andNext) NEXT_FRAME.copy(bytes, size);
  return bytes;
}

// The fields of a head are lines.
function line(text) {
  return String(text).replace(/\n/g, ' ');
}

// The node has ended, or has given this environment up: nobody is there to be told anything.
function gone() {
  process.reallyExit(0);
}

module.exports = { Channel, NEXT_FRAME, frame, kinds, line };
