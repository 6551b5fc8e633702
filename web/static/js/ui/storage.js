// @ts-check
/**
 * Where the resume secret outlives a reload: memory, `sessionStorage` when allowed (not in every iframe), `history.state`.
 * All three belong to this tab; nothing is kept on the device once it is closed.
 *
 * @param {string} place names the link, so that another link opened in the same tab does not inherit the seat
 * @returns {{get(): string | null, set(value: string | null): void}}
 */
export function tabStorage(place) {
  const key = `colloque:${place}`;
  /** @type {string | null} */
  let memory = null;
  return {
    get() {
      if (memory) return memory;
      try {
        const kept = sessionStorage.getItem(key);
        if (kept) return kept;
      } catch {
        // Storage is refused in this frame: history.state remains.
      }
      const state = history.state?.colloque;
      return state?.place === place ? state.resume : null;
    },
    set(value) {
      memory = value;
      try {
        if (value) sessionStorage.setItem(key, value);
        else sessionStorage.removeItem(key);
      } catch {
        // As above.
      }
      history.replaceState({ ...history.state, colloque: { place, resume: value } }, '');
    },
  };
}
