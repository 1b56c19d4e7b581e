// The same page once more, now asked for by itself: then the browser gives the cookie. The "?" makes it another address.
location.replace(`./?${location.hash}`);
