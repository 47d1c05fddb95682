// The two ways to a gateway, behind one small face: `send` (null where there is no way up) and `close`, which detaches
// first, because a browser reports the close of a dead link only after a minute. Events go to `sink`.

/**
 * @typedef {object} Sink
 * @property {() => void} open
 * @property {(message: any, bytes: number) => void} message
 * @property {(code: number, reason: string) => void} closed
 * @typedef {{kind: 'ws'|'sse', send: ((message: any) => boolean)|null, close: () => void}} Link
 * @typedef {{protocol: string, binary: boolean, encode(message: any): any, decode(data: any): any}} Codec
 */

/** @type {Codec} */
export const json = { protocol: 'odds.v1.json', binary: false, encode: JSON.stringify, decode: JSON.parse };

const DOWN = ['welcome', 'ok', 'err', 'snap', 'delta', 'stop', 'feed', 'gap', 'gone', 'catalogue', 'crc', 'hb', 'bye'];

function decoded(codec, data, sink) {
  try {
    return codec.decode(data);
  } catch (error) {
    sink.closed(1007, `a message that cannot be read: ${error.message}`);
    return null;
  }
}

/** @param {any} env @param {string} url @param {Codec} codec @param {Sink} sink @returns {Link} */
export function openWebSocket(env, url, codec, sink) {
  const socket = new env.WebSocket(`${url.replace(/^http/, 'ws')}/v1/ws?catalogue=1`, [codec.protocol]);
  const detach = () => (socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null);
  if (codec.binary) socket.binaryType = 'arraybuffer';
  socket.onopen = () => sink.open();
  socket.onmessage = ({ data }) => {
    const message = decoded(codec, data, sink);
    if (message) sink.message(message, data.length ?? data.byteLength);
  };
  socket.onerror = () => {};
  socket.onclose = ({ code, reason }) => (detach(), sink.closed(code, reason));
  return {
    kind: 'ws',
    send(message) {
      if (socket.readyState !== 1) return false;
      socket.send(codec.encode(message));
      return true;
    },
    close() {
      detach();
      try {
        socket.close(1000);
      } catch {
        // It was closed already.
      }
    },
  };
}

/** @param {any} env @param {string} url @param {URLSearchParams} query @param {Sink} sink @returns {Link & {cursor: string}} */
export function openEventStream(env, url, query, sink) {
  const source = new env.EventSource(`${url}/v1/sse?catalogue=1&${query}`);
  // A cursor that names markets is older than what is held by the time it could be used again.
  const given = query.get('cursor') ?? '';
  const link = { kind: /** @type {'sse'} */ ('sse'), send: null, cursor: given.includes('!') ? '' : given, close };
  let open = true;
  function close() {
    open = false;
    source.close();
  }
  const take = (event) => {
    if (!open) return;
    const message = decoded(json, event.data, sink);
    // An id stays the last one until the next. What is forgotten is not held as of a position below its end.
    if (message?.t === 'hb' && event.lastEventId) link.cursor = event.lastEventId;
    else if (message?.t === 'gone') link.cursor = '';
    if (message) sink.message(message, event.data.length);
  };
  for (const name of DOWN) source.addEventListener(name, take);
  source.onopen = () => open && sink.open();
  source.onerror = () => {
    // The browser's own retry neither backs off nor survives a 503: come back by our own rules.
    if (!open) return;
    close();
    sink.closed(1006, 'the event stream broke off');
  };
  return link;
}
