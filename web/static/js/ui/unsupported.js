// For browsers that cannot run the page: without ES modules, or too old for what is in them (their first word of it is an error). Runs
// before the modules, in old syntax on purpose. The words are already in the page.
(function () {
  function show() {
    var views = document.querySelectorAll('[data-view]');
    for (var i = 0; i < views.length; i++) {
      if (views[i].getAttribute('data-view') === 'old-browser') views[i].removeAttribute('hidden');
      else views[i].setAttribute('hidden', '');
    }
    var main = document.querySelector('main');
    if (main) main.setAttribute('data-state', 'problem');
  }
  function showWhenRead() {
    if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', show);
    else show();
  }
  if (!('noModule' in HTMLScriptElement.prototype)) {
    showWhenRead();
    return;
  }
  window.addEventListener('error', function (event) {
    if (event instanceof ErrorEvent && !document.documentElement.hasAttribute('data-started')) showWhenRead();
  });
})();
