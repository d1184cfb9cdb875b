"""The console in real Chromium."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from clusters import event, small, thousand
from selenium.webdriver.common.keys import Keys

from conftest import Page, Site

pytestmark = [pytest.mark.slow, pytest.mark.tools("chromium", "chromedriver")]


@pytest.fixture
def shop(site: Site, page: Page) -> Page:
    site.create(*small())
    site.create(
        event(
            "e1", "shop", "Pod", "cart-1", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503"
        )
    )
    return page


def names(page: Page) -> list[str]:
    script = "return [...document.querySelectorAll('aside .row b')].map((one) => one.innerText)"
    return list(page.driver.execute_script(script))


def test_map_shows_all_and_filters(shop: Page) -> None:
    shop.open()
    shop.until(lambda: shop.text(".counts").startswith("13 Services"), "all Services on the map")
    assert shop.text(".counts") == "13 Services, 32 Pods, 3 nodes"
    shop.shot("map-light")
    shop.one(".filter").send_keys("cart")
    shop.until(lambda: names(shop) == ["cart"], "one Service is left")
    assert shop.text(".counts") == "1 Service, 3 Pods, 3 nodes"
    shop.one(".filter").clear()
    shop.one(".filter").send_keys("app=serach")
    shop.until(lambda: names(shop) == ["search"], "found by its selector")
    assert shop.errors() == []


def test_service_page_tells_the_story_and_follows_it(shop: Page) -> None:
    shop.open("service/shop/cart")
    shop.until(lambda: "cart" in shop.text("h1"), "the page of the Service")
    shop.until(lambda: "cart-1" in shop.text("table"), "its Pods")
    assert "not ready" in shop.text(".findings")
    assert shop.all("svg.diagram .none")
    shop.shot("service-light")
    shop.site.patch(
        "/api/v1/namespaces/shop/pods/cart-1/status",
        {"status": {"conditions": [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")]}},
    )
    slice_ = shop.site.call("GET", "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/cart-1")
    for one in slice_["endpoints"]:
        one["conditions"]["ready"] = True
    shop.site.call("PUT", "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/cart-1", slice_)
    shop.until(lambda: "No problem found" in shop.text("article"), "the page follows by itself")
    assert shop.errors() == []


def test_trace_draws_the_way(shop: Page) -> None:
    shop.open("trace?source=node1&target=shop/cart&port=80")
    shop.one("button.primary").click()
    shop.until(lambda: shop.text(".verdict").startswith("●deliver"), "the verdict")
    assert len(shop.all(".way .station.ok")) == 2
    assert "50.0 %" in shop.text("table")
    shop.shot("trace-light")
    shop.go("trace?source=node1&target=default/search&port=80")
    shop.one("button.primary").click()
    shop.until(lambda: shop.text(".verdict").startswith("✕reject"), "the verdict of a Service without endpoints")
    shop.shot("trace-reject")
    assert shop.errors() == []


def test_rules_are_searchable(shop: Page) -> None:
    shop.open("rules?node=node1")
    shop.until(lambda: shop.text("main .line [role=status]").endswith(" rules"), "rules are shown")
    shop.shot("rules-light")
    shop.one("#rules-search").send_keys("reject")
    shop.until(lambda: shop.text("main .line [role=status]").startswith("1 of"), "one Service has no endpoint")
    assert "default/search" in shop.text("main .list")
    assert shop.errors() == []


def test_events_come_by_themselves(shop: Page) -> None:
    shop.open("events")
    shop.until(lambda: "Unhealthy" in shop.text("main .list"), "the event is shown")
    shop.site.create(event("e2", "default", "Service", "web", "SomethingNew", "it happened just now"))
    shop.until(lambda: "SomethingNew" in shop.text("main .list"), "a new one comes")
    shop.shot("events-light")
    assert shop.errors() == []


def test_login_takes_a_token_and_nothing_else(shop: Page) -> None:
    shop.driver.get("about:blank")
    shop.driver.get(shop.site.url)
    shop.driver.execute_script("sessionStorage.clear(); location.reload()")
    shop.one("#token").send_keys("wrong" + Keys.ENTER)
    shop.until(lambda: "does not know this token" in shop.text(".login .problem"), "a wrong token is refused")
    shop.shot("login-light")
    shop.one("#token").clear()
    shop.one("#token").send_keys(shop.site.server.token + Keys.ENTER)
    shop.until(lambda: shop.text(".status") == "●live", "signed in")
    assert shop.site.server.token not in shop.driver.current_url


def test_dark_follows_the_system_and_the_button(shop: Page) -> None:
    def background() -> str:
        return str(shop.driver.execute_script("return getComputedStyle(document.body).backgroundColor"))

    shop.colours("dark")
    shop.open()
    shop.until(lambda: shop.text(".counts").startswith("13 Services"), "all Services on the map")
    dark = background()
    shop.shot("map-dark")
    shop.go("service/shop/cart")
    shop.until(lambda: "cart-1" in shop.text("table"), "its Pods")
    shop.shot("service-dark")
    shop.go("trace?source=node1&target=shop/cart&port=80")
    shop.one("button.primary").click()
    shop.until(lambda: shop.text(".verdict").startswith("●deliver"), "the verdict")
    shop.shot("trace-dark")
    shop.one("[aria-label='Colours: auto']").click()
    shop.one("[aria-label='Colours: light']")
    light = background()
    assert light != dark
    shop.one("[aria-label='Colours: light']").click()
    assert background() == dark
    shop.driver.execute_script("localStorage.clear()")


def test_traffic_is_drawn_and_told(shop: Page) -> None:
    cart = shop.site.call("GET", "/api/v1/namespaces/shop/services/cart")["spec"]["clusterIP"]
    shop.site.carry((cart, "10.244.2.13", 12), (cart, "10.244.1.15", 3))
    shop.open()
    shop.until(lambda: shop.data("busy") == "2", "two edges carry traffic")
    assert shop.text(".flowing") == "traffic: 15 new/s, 2 active"
    shop.shot("map-traffic-light")
    shop.go("service/shop/cart")
    shop.until(lambda: "12 new/s, 1 active, 12.1 kB/s" in shop.text("table"), "by Pod, on the Service's page")
    assert shop.errors() == []


def test_narrow_window(shop: Page) -> None:
    shop.window(390, 844)
    shop.open()
    shop.until(lambda: shop.text(".counts").startswith("13 Services"), "all Services on the map")
    wide = "return document.documentElement.scrollWidth > innerWidth"
    for view in ("map", "service/shop/cart", "trace?source=node1&target=shop/cart&port=80", "rules", "events"):
        shop.go(view)
        if view.startswith("trace"):
            shop.one("button.primary").click()
            shop.until(lambda: shop.text(".verdict").startswith("●deliver"), "the verdict")
        if view.startswith("service"):
            shop.until(lambda: "cart-1" in shop.text("table"), "its Pods")
        shop.shot(f"narrow-{view.partition('/')[0].partition('?')[0]}")
        assert not shop.driver.execute_script(wide), f"{view} is wider than the window"
    shop.one(".drawer").click()
    assert shop.focused() == "Filter Services"
    shop.shot("narrow-list")
    shop.press("prices", Keys.ARROW_DOWN, Keys.ENTER)
    shop.until(lambda: shop.text("h1").startswith("●prices"), "a Service is opened from the list")
    assert not shop.one("aside").is_displayed()


#: Contrast of each text against what is behind it, by WCAG 2; those below what AA asks for.
CONTRAST = """
const parse = (text) => text.match(/[0-9.]+/g).map(Number);
const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
const behind = (one) => {
  for (let at = one; at; at = at.parentElement) {
    const colour = parse(getComputedStyle(at).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const found = [];
for (const one of document.querySelectorAll('body *')) {
  const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !one.getClientRects().length || one instanceof SVGElement) continue;
  const style = getComputedStyle(one);
  const [a, b] = [light(parse(style.color)), light(behind(one))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  const large = parseFloat(style.fontSize) >= 18.66 || one.classList.contains('mark');
  const who = `${one.tagName}.${one.className} ${one.textContent.slice(0, 30)}`;
  if (ratio < (large ? 3 : 4.5)) found.push(`${who}: ${ratio.toFixed(2)}`);
}
return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_names(shop: Page, scheme: str) -> None:
    shop.colours(scheme)
    shop.open()
    shop.until(lambda: shop.text(".counts").startswith("13 Services"), "all Services on the map")
    seen = {}
    for view in ("map", "service/shop/cart", "trace?source=node1&target=default/search&port=80", "rules", "events"):
        shop.go(view)
        if view.startswith("trace"):
            shop.one("button.primary").click()
            shop.until(lambda: shop.text(".verdict").startswith("✕reject"), "the verdict")
        if view.startswith("service"):
            shop.until(lambda: "cart-1" in shop.text("table"), "its Pods")
        if view in ("rules", "events"):
            shop.until(lambda: bool(shop.all("main .row")), "rows")
        seen[view] = shop.driver.execute_script(CONTRAST)
        assert shop.driver.execute_script(NAMELESS) == [], view
    assert {view: found for view, found in seen.items() if found} == {}


#: Controls that a screen reader cannot name, and ids that are there twice.
NAMELESS = """
const name = (one) => one.getAttribute('aria-label') || one.labels?.[0]?.textContent || one.textContent || one.title;
const nameless = [...document.querySelectorAll('a[href], button, input, select, [role=listbox], [role=img]')]
  .filter((one) => !name(one).trim()).map((one) => one.outerHTML.slice(0, 80));
const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);
return nameless.concat(ids.filter((id, index) => ids.indexOf(id) !== index));
"""


OUTLINE = "const s = getComputedStyle(document.activeElement); return `${s.outlineStyle} ${s.outlineWidth}`"
FOCUSED = "const one = document.activeElement; return one.getAttribute('aria-label') || one.innerText"


def test_focus_is_seen_and_goes_in_order(shop: Page) -> None:
    shop.open()
    shop.until(lambda: len(names(shop)) == 13, "the list is filled")
    shop.driver.execute_script("document.activeElement.blur()")
    order = []
    while "Services" not in order:  # the list is the last stop of the map
        assert len(order) < 20, order
        shop.press(Keys.TAB)
        order.append(str(shop.driver.execute_script(FOCUSED)))
        assert shop.driver.execute_script(OUTLINE) == "solid 2px", order
    assert order[0] == "Skip to content"
    assert order[2:6] == ["Map", "Trace", "Rules", "Events"]
    assert order.index("Sign out") < order.index("Filter Services") < order.index("Services")


def test_everything_by_keyboard(shop: Page) -> None:
    shop.open()
    shop.until(lambda: len(names(shop)) == 13, "the list is filled")
    shop.press("/")
    assert shop.focused() == "Filter Services"
    shop.press("shop", Keys.ARROW_DOWN)
    assert shop.focused() == "Services"
    shop.until(lambda: "shop" in shop.text("aside .row[aria-selected=true]"), "the first of the namespace is chosen")
    shop.press(Keys.ARROW_DOWN, Keys.ENTER)
    shop.until(lambda: shop.text("h1").startswith("◐cart"), "Enter opens the Service")
    shop.press(Keys.ESCAPE)
    shop.one("canvas")
    for key, heading in (("2", "Trace a connection"), ("3", "Rules of a node"), ("4", "Events")):
        shop.press(key)
        shop.until(lambda heading=heading: shop.text("h1") == heading, heading)
    shop.press("2")
    shop.one("#trace-source").send_keys("node1", Keys.TAB, "shop/cart", Keys.TAB, Keys.ENTER)
    shop.until(lambda: shop.text(".verdict").startswith("●deliver"), "a trace without a mouse")
    controls = (
        "return [...document.querySelectorAll('button, input, select, a[href]')]"
        ".filter((one) => one.tabIndex < 0).length"
    )
    assert shop.driver.execute_script(controls) == 0
    unnamed = (
        "return [...document.querySelectorAll('input, select')]"
        ".filter((one) => !one.labels?.length && !one.getAttribute('aria-label')).length"
    )
    assert shop.driver.execute_script(unnamed) == 0


def test_nothing_is_asked_of_others(shop: Page) -> None:
    shop.driver.get_log("performance")
    shop.open()
    for view in ("trace", "rules", "events", "service/default/web", "map"):
        shop.go(view)
    shop.until(lambda: shop.text(".counts").startswith("13 Services"), "all Services on the map")
    asked = [json.loads(entry["message"])["message"] for entry in shop.driver.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"]
    assert len(urls) > 15
    assert [url for url in urls if not url.startswith((shop.site.server.url, "data:", "about:"))] == []


def test_names_are_shown_as_text(shop: Page) -> None:
    shop.site.create(event("e3", "default", "Service", "web", "Odd", "<img src=x onerror=document.title='caught'>"))
    shop.open("events")
    shop.until(lambda: "onerror" in shop.text("main .list"), "the markup is shown, not followed")
    assert shop.all("main .list img") == []
    assert "caught" not in shop.driver.title


def test_server_that_comes_back_is_followed_again(shop: Page) -> None:
    shop.open()
    shop.until(lambda: len(names(shop)) == 13, "the list is filled")
    shop.site.stop()
    shop.until(lambda: shop.text(".status") == "✕reconnecting", "the loss is told")
    assert len(names(shop)) == 13  # what was known stays in sight
    shop.site.start_again()
    shop.until(lambda: shop.text(".status") == "●live", "live again")
    shop.site.call("DELETE", "/api/v1/namespaces/default/services/web")
    shop.until(lambda: "web" not in names(shop), "a change after that arrives")


def test_user_with_few_rights_sees_what_the_api_shows(shop: Page) -> None:
    shop.driver.get("about:blank")
    shop.driver.get(f"{shop.site.url}#token=guest-token")
    shop.until(lambda: shop.text(".status") == "◐not allowed: nodes", "what is not allowed is told")
    shop.until(lambda: len(names(shop)) == 13, "the Services are shown")
    shop.go("service/shop/cart")
    shop.until(lambda: "cart-1" in shop.text("table"), "the story, without nodes and events")
    shop.go("rules")
    assert shop.errors() == []


def test_console_of_its_own_serves_any_cluster(shop: Page) -> None:
    program = [sys.executable, "-c", "from svcplane.cli.main import main; main()"]
    argv = [*program, "console", "--kubeconfig", str(shop.site.kubeconfig), "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as console:
        try:
            assert console.stdout is not None
            url = console.stdout.readline().rpartition(" ")[2].strip()
            assert url.startswith("http://127.0.0.1:")
            shop.open(url=url)
            shop.until(lambda: len(names(shop)) == 13, "the list is filled")
            shop.go("service/shop/cart")
            shop.until(lambda: "cart-1" in shop.text("table"), "the story of a Service")
            shop.site.call("DELETE", "/api/v1/namespaces/default/services/web")
            shop.until(lambda: len(names(shop)) == 12, "changes come through")
            bare = url.partition("#")[0].replace("/console", "/api/v1/services")
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(bare, timeout=10)
            assert shop.errors() == []
        finally:
            shop.driver.get("about:blank")
            console.send_signal(signal.SIGINT)
            assert console.wait(20) == 0


#: From now on: the long tasks (50 ms and more) and the time between frames.
WATCH = """
window.tasks = []; window.frames_ = []; let last = performance.now();
const seen = (list) => { for (const one of list.getEntries()) tasks.push(one.duration); };
new PerformanceObserver(seen).observe({ type: 'longtask' });
const tick = (now) => { frames_.push(now - last); last = now; requestAnimationFrame(tick); };
requestAnimationFrame(tick);
"""
FIGURES = """
const sorted = frames_.slice(1).sort((a, b) => a - b);
const all = (list) => list.reduce((sum, one) => sum + one, 0);
return { frames: sorted.length, median: sorted[sorted.length >> 1], p95: sorted[Math.floor(sorted.length * 0.95)],
  longest: Math.max(0, ...tasks), blocked: all(tasks), took: all(frames_) };
"""


def test_thousand_services_under_change_and_traffic_do_not_freeze(site: Site, page: Page) -> None:
    site.create(*thousand())
    services = site.call("GET", "/api/v1/namespaces/default/services")["items"]
    ips = {one["metadata"]["name"]: one["spec"]["clusterIP"] for one in services}
    site.carry(
        *(
            (ips[f"svc-{index:04}"], f"10.244.{index % 20 + 1}.{index // 20 * 3 % 250 + 1}", index % 40 + 1)
            for index in range(1, 301)
        )
    )
    page.open()
    page.until(lambda: page.data("busy") != "0" and "1001 Services" in page.text(".tools"), "the map with its traffic")
    page.shot("thousand-traffic")
    page.driver.execute_script(WATCH)
    for number in range(60):
        names_ = [f"svc-{(number * 5 + more) % 1000:04}" for more in range(5)]
        site.label(names_, str(number))
        if number % 10 == 0:
            page.one(".filter").send_keys("svc-00"[number // 10])
    last = "return svcplane.cluster.summaries.get('default/svc-0299').service.metadata.labels.round"
    page.until(lambda: page.driver.execute_script(last) == "59", "every change has arrived")
    figures = page.driver.execute_script(FIGURES)
    print(figures)
    assert figures["frames"] > 30
    assert figures["longest"] < 400, figures
    assert figures["median"] < 60, figures
    assert figures["blocked"] < figures["took"] / 2, figures
    assert page.errors() == []


def test_thousand_services_stay_quick(site: Site, page: Page) -> None:
    site.create(*thousand())
    page.open()
    page.until(lambda: page.text(".counts") == "1001 Services, 3000 Pods, 20 nodes", "all Services on the map")
    page.until(lambda: "1001 Services" in page.text(".tools"), "the list is complete")
    page.shot("thousand-light")
    assert len(page.all("aside .row")) < 60  # only the rows in sight are in the document
    draws = page.timed("svcplane.frame.view.draw()", 20)
    assert draws < 100, f"{draws} ms to draw the map"
    filters = page.timed("frame.words = (i % 2 ? 'svc-00' : ''), frame.refilter()", 20)
    assert filters < 150, f"{filters} ms to filter"
    page.one(".filter").send_keys("svc-0050")
    page.until(lambda: names(page) == ["svc-0050"], "the filter finds one of a thousand")
    page.shot("thousand-filtered")
    page.one(".filter").clear()
    page.one(".filter").send_keys(" ")
    page.one("aside .list").send_keys(Keys.END)
    page.until(lambda: "svc-0999" in names(page), "the end of the list in one key")
    page.shot("thousand-selected")
    site.patch(
        "/api/v1/namespaces/default/services/svc-0999", {"metadata": {"name": "svc-0999"}, "spec": {"type": "NodePort"}}
    )
    page.until(lambda: page.kind("default/svc-0999") == "NodePort", "a change arrives")
    page.go("rules?node=node7")
    page.until(lambda: page.text("main .line [role=status]") == "1002 of 1002 rules", "the rules of a node")
    assert len(page.all("main .row")) < 60
    assert page.errors() == []
