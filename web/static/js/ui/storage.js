// @ts-check
/**
 * Where something outlives a reload: memory, `sessionStorage` when allowed (not in every iframe), `history.state`.
 * All three belong to this tab; nothing is kept on the device once it is closed.
 *
 * @param {'resume' | 'off'} what the resume secret, or the devices that the person has switched off
 * @param {() => string} place names the link in use, so that another link opened in the same tab does not inherit it
 * @returns {{get(): string | null, set(value: string | null): void}}
 */
export function tabStorage(what, place) {
  const key = () => `colloque:${what}:${place()}`;
  /** @type {string | null} */
  let memory = null;
  return {
    get() {
      if (memory) return memory;
      try {
        const kept = sessionStorage.getItem(key());
        if (kept) return kept;
      } catch {
        // Storage is refused in this frame: history.state remains.
      }
      const kept = history.state?.[what];
      return kept?.place === place() ? kept.value : null;
    },
    set(value) {
      memory = value;
      try {
        if (value) sessionStorage.setItem(key(), value);
        else sessionStorage.removeItem(key());
      } catch {
        // As above.
      }
      history.replaceState({ ...history.state, [what]: { place: place(), value } }, '');
    },
  };
}
