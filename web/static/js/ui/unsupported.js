// For browsers without ES modules (`nomodule`): old syntax on purpose. The words are already in the page.
(function () {
  function show() {
    var main = document.getElementById('main');
    var views = document.querySelectorAll('[data-view]');
    for (var i = 0; i < views.length; i++) views[i].hidden = views[i].getAttribute('data-view') !== 'old-browser';
    main.setAttribute('data-state', 'problem');
    main.setAttribute('data-code', 'unsupported');
  }
  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', show);
  else show();
})();
