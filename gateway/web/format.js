// Numbers and times for people. Everything on the wire is an integer; it becomes text only here.

const formats = new Map();

function number(digits, options = {}) {
  const key = `${digits}|${JSON.stringify(options)}`;
  if (!formats.has(key)) {
    const fraction = { minimumFractionDigits: digits, maximumFractionDigits: digits };
    formats.set(key, new Intl.NumberFormat(undefined, { ...fraction, ...options }));
  }
  return formats.get(key);
}

/** A scaled price as its market words it: decimal odds, a percentage, a line. */
export function price(scaled, { price_exponent: exponent = 0, price_kind: kind = 'odds' }) {
  if (scaled === undefined || scaled === null) return '';
  if (kind === 'probability') return `${number(Math.max(0, exponent - 2)).format(scaled / 10 ** (exponent - 2))}%`;
  const value = scaled / 10 ** exponent;
  let needed = exponent;
  for (let rest = scaled; needed > 0 && rest % 10 === 0; rest /= 10) needed--;
  const usual = kind === 'line' ? 1 : value < 10 ? 2 : value < 100 ? 1 : 0;
  return number(Math.max(needed, Math.min(usual, exponent))).format(value);
}

/** A scaled size, without the cents that nobody reads. */
export function size(scaled, { size_exponent: exponent = 0, currency }) {
  if (scaled === undefined || scaled === null) return '';
  const value = scaled / 10 ** exponent;
  return money(currency, value, value < 10 && !Number.isInteger(value) ? 2 : 0);
}

/** A scaled size in few characters: `£1.2M`. */
export function compact(scaled, { size_exponent: exponent = 0, currency }) {
  if (scaled === undefined || scaled === null) return '';
  const value = scaled / 10 ** exponent;
  return money(currency, value, value >= 1e6 ? 1 : 0, { notation: 'compact' });
}

function money(currency, value, digits, options = {}) {
  try {
    return number(digits, { ...options, ...(currency && { style: 'currency', currency, currencyDisplay: 'narrowSymbol' }) }).format(value);
  } catch {
    return `${number(digits, options).format(value)} ${currency}`; // Not a currency that the browser knows.
  }
}

const hour = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const day = new Intl.DateTimeFormat(undefined, { weekday: 'short', hour: '2-digit', minute: '2-digit' });
const date = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });

/** When something starts, as short as it is clear. */
export function start(ms, now) {
  if (!ms) return '';
  const away = Math.abs(ms - now);
  return (away < 12 * 3600e3 ? hour : away < 6 * 86_400e3 ? day : date).format(ms);
}

/** How long ago, in few characters. */
export function ago(ms) {
  if (ms === null || !Number.isFinite(ms)) return '–';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`;
  return ms < 7_200_000 ? `${Math.round(ms / 60_000)} min` : ms < 172_800_000 ? `${Math.round(ms / 3_600_000)} h` : `${Math.round(ms / 86_400_000)} d`;
}

/** Bytes in few characters. */
export function bytes(count) {
  return count < 1e3 ? `${count} B` : count < 1e6 ? `${(count / 1e3).toFixed(0)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

/** A sport's name for people: `horse_racing` is "Horse racing". @param {string} sport */
export function sportName(sport) {
  const words = sport.replaceAll('_', ' ');
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** A market's name with its line, where the name does not say it already. @param {{name?: string, type?: string, line?: string}} market */
export function marketName({ name, type, line }, otherwise = '') {
  const words = name ?? type ?? otherwise;
  return line && !words.includes(line) ? `${words} ${line}` : words;
}
