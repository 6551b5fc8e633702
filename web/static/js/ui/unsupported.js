// For browsers without ES modules (`nomodule`): old syntax on purpose. The words are already in the page.
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
  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', show);
  else show();
})();
