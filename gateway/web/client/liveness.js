// Whether a connection is live, and what the server's clock says. Liveness is a round trip: a client behind full
// buffers still hears heartbeats, only old ones. "Now" is the larger advance of two clocks: the monotonic one may
// stand still while a computer sleeps, the wall clock may be set back.

/** @typedef {{now(): number, mono(): number}} Clock `now` is the wall clock, `mono` never goes back; both ms */

const SAMPLES = 8;
const PINGS = 32;

export class Liveness {
  /** Heartbeat interval, ms. */
  interval = 1000;
  /** @type {number|null} newest round trip, ms */ rtt = null;
  /** What to add to the wall clock to have the server's, ms: from the quickest of the last round trips. */
  offset = 0;
  /** Whether `offset` was measured. */
  synced = false;
  #clock;
  #samples = [];
  #pings = [];
  #last = 0;
  /** The newest sign of life: when it was sent, by both clocks. */
  #proof = null;
  /** The server's clock at a moment, by both clocks: a wall clock that is set back must not make old news fresh. */
  #sync = null;

  /** @param {Clock} clock */
  constructor(clock) {
    this.#clock = clock;
  }

  #mark() {
    return { mono: this.#clock.mono(), wall: this.#clock.now() };
  }

  #since(mark) {
    return Math.max(this.#clock.mono() - mark.mono, this.#clock.now() - mark.wall);
  }

  /** A new connection: nothing is proven. The clock's offset stays. */
  reset() {
    this.#pings = [];
    this.#proof = null;
  }

  /** Notes a ping that is sent now. @returns {number} its `time` */
  ping() {
    const time = Math.max(Math.floor(this.#clock.now()), this.#last + 1);
    this.#last = time;
    this.#pings.push({ time, ...this.#mark() });
    if (this.#pings.length > PINGS) this.#pings.shift();
    return time;
  }

  /** Takes in the answer to a ping. @param {number} time @param {number} serverNow @returns {boolean} whether it was ours */
  echo(time, serverNow) {
    const at = this.#pings.findIndex((p) => p.time === time);
    if (at < 0) return false;
    const ping = this.#pings[at];
    this.#pings.splice(0, at + 1);
    this.#proof = ping;
    this.rtt = Math.max(0, this.#clock.mono() - ping.mono);
    this.#sample(this.rtt, serverNow);
    return true;
  }

  #sample(rtt, serverNow) {
    this.#samples.push({ rtt, offset: serverNow + rtt / 2 - this.#clock.now() });
    if (this.#samples.length > SAMPLES) this.#samples.shift();
    this.offset = this.#samples.reduce((a, b) => (b.rtt < a.rtt ? b : a)).offset;
    this.synced = true;
  }

  /** Takes in an answer of `GET /v1/time`. @param {number} rtt ms @param {number} serverNow */
  measured(rtt, serverNow) {
    this.#samples = [];
    this.rtt = rtt;
    this.#sample(rtt, serverNow);
    this.#sync = { server: serverNow + rtt / 2, ...this.#mark() };
  }

  /** One way: takes in a heartbeat's server time, once the offset is known. @param {number} serverNow */
  heard(serverNow) {
    if (!this.#sync) return;
    const late = Math.max(0, this.#sync.server + this.#since(this.#sync) - serverNow);
    const mark = this.#mark();
    this.#proof = { mono: mark.mono - late, wall: mark.wall - late };
  }

  /** The server's clock, as far as known, ms. */
  serverNow() {
    return this.#clock.now() + this.offset;
  }

  /** Age of the newest proof of life, ms. */
  get age() {
    return this.#proof ? this.#since(this.#proof) : Infinity;
  }

  /** Whether the connection is live by PROTOCOL.md §4. */
  get live() {
    return this.age <= 2.5 * this.interval;
  }
}
