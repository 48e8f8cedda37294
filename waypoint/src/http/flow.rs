//! The way of one request, top to bottom: checked and normalised, told of its client, given a
//! route, let through the chain's filters, and then forwarded, redirected or answered here. What it
//! decides with is in the rooms of the decisions; what it did is in its [`Flight`].

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{HeaderValue, header};
use hyper::body::Incoming;
use hyper::{Request, Response};
use mesh::policy::Permit;

use super::body::ResponseBody;
use super::connection::Http;
use super::flight::{Flight, Landing};
use super::inbound::Inbound;
use super::raw::Quirks;
use super::reply::{Refusal, Reply};
use super::request::{Asked, Stop};
use super::session::Sticky;
use super::view::View;
use super::{answer, filters, forward, forwarded, plugins, web};
use crate::head::Metadata;
use crate::model::route::{Route, RouteAction, VirtualHost};
use crate::route::{Ask, Found, find, redirect, split};
use crate::telemetry::{Exchange, Flags, Marks, Text};

/// A request on its way.
pub(super) struct Flow<'h> {
    pub(super) http: &'h Rc<Http>,
    pub(super) view: Rc<View>,
    pub(super) flight: Rc<Flight>,
    pub(super) asked: Asked,
    pub(super) body: Option<Inbound>,
    /// What filters wrote down.
    pub(super) metadata: Metadata,
    /// Its own random number: one for all choices.
    pub(super) random: u64,
    pub(super) target: Target,
    /// What the chain's policies gave.
    pub(super) permit: Option<Permit>,
    /// What is done to the answer, whoever makes it.
    pub(super) afterwards: answer::Afterwards,
    /// Its session, where it may have one.
    pub(super) sticky: Option<Sticky>,
    /// `x-request-id`, where the answer is to say it.
    pub(super) request_id: Option<HeaderValue>,
    /// It is gRPC.
    pub(super) grpc: bool,
}

/// What the table says of a request.
#[derive(Debug, Default)]
pub(super) enum Target {
    /// Nothing.
    #[default]
    Nothing,
    /// Only TLS is served for this host.
    RequireTls,
    /// A route.
    Route(Arc<VirtualHost>, Arc<Route>),
}

/// Answers a request.
pub(super) async fn run(http: &Rc<Http>, request: Request<Incoming>) -> Response<ResponseBody> {
    let active = http.begin();
    let view = http.view();
    let (parts, body) = request.into_parts();
    let down = &http.connection.down;
    let marks = Marks::new(Instant::now(), SystemTime::now());
    let exchange = Exchange::new(down.clone(), marks, parts.method.clone(), parts.version);
    let complete = hyper::body::Body::is_end_stream(&body);
    let local = http.connection.local.clone();
    let flight = Flight::new(exchange, view.clone(), local, active, complete);
    http.last.replace(Rc::downgrade(&flight));
    let landing = Landing::new(&flight);
    let limits = &view.chain.limits;
    flight.limit(|limit| {
        limit.idle = limits.stream_idle;
        limit.whole = limits.max_stream_duration;
        limit.request = limits.request;
    });
    let encoded = parts.headers.contains_key(header::TRANSFER_ENCODING);
    let quirks = http.raw.as_ref().map(|raw| raw.begin(encoded));
    let quirks = quirks.unwrap_or_default();
    let asked = Asked::new(parts, down.secure && down.authority.is_none());
    let mut flow = Flow {
        grpc: asked.head().is_grpc(),
        http,
        flight,
        asked,
        body: Some(body.into()),
        metadata: Metadata::default(),
        random: rand::random(),
        target: Target::Nothing,
        permit: None,
        afterwards: answer::Afterwards::default(),
        sticky: None,
        request_id: None,
        view,
    };
    let served = flow.serve(quirks, &landing).await;
    if !flow.flight.plugins.borrow().is_empty() {
        return Box::pin(plugins::answer(flow, landing, served)).await;
    }
    match served {
        Ok(answered) => answered.into_response(flow, landing),
        Err(reply) => answer::reply(flow, landing, reply),
    }
}

impl Flow<'_> {
    async fn serve(
        &mut self,
        quirks: Quirks,
        landing: &Landing,
    ) -> Result<answer::Answered, Reply> {
        let chain = self.view.chain.clone();
        let down = self.http.connection.down.clone();
        if let Err(stop) = self.asked.check(&chain, down.port(), quirks) {
            self.record(&down);
            return Err(match stop {
                Stop::Refused(refusal) => {
                    // Readers disagree about where such a request ends: the connection ends with it.
                    if matches!(refusal, Refusal::Coding | Refusal::LengthAndEncoding) {
                        self.http.closing.set(true);
                    }
                    refusal.into()
                }
                Stop::Redirect(path) => {
                    let status = http::StatusCode::TEMPORARY_REDIRECT;
                    Reply::redirect(status, &path)
                }
            });
        }
        let client = forwarded::apply(&mut self.asked, &chain, &self.view.table, &down);
        self.flight.exchange.borrow_mut().client = client;
        if chain.request_id.in_response {
            self.request_id = self.asked.headers.get(forwarded::REQUEST_ID).cloned();
        }
        self.record(&down);
        self.find_route();
        let telemetry = &self.http.connection.local.telemetry;
        telemetry.routed(&mut self.flight.exchange.borrow_mut(), &self.asked.headers);
        self.check_upgrade()?;
        let filtered = filters::run(self, &chain).await;
        // What filters wrote down is told by logs and headers, of denied requests too.
        self.flight.exchange.borrow_mut().metadata = self.metadata.clone();
        filtered?;
        let answered = self.act(landing).await?;
        match web::is_foreign(self, &answered) {
            true => Box::pin(web::read(self, answered)).await,
            false => Ok(answered),
        }
    }

    /// Writes down what was asked.
    fn record(&self, down: &crate::connection::Downstream) {
        let exchange = &mut *self.flight.exchange.borrow_mut();
        exchange.scheme = self.asked.scheme;
        exchange.authority = Text::Header(self.asked.authority.clone());
        exchange.path = self.asked.path.clone().map_or(Text::Empty, Text::Path);
        exchange.is_grpc = self.grpc;
        debug_assert_eq!(exchange.downstream.id, down.id);
        let telemetry = &self.http.connection.local.telemetry;
        telemetry.begin(&self.view.chain, exchange, &self.asked.headers);
    }

    /// Looks the route up; again where a filter wrote something down that it may depend on.
    pub(super) fn find_route(&mut self) {
        let head = self.asked.head();
        let ask = Ask {
            head: &head,
            metadata: &self.metadata,
            caller: Some(&self.http.connection.down),
            random: self.random,
        };
        self.target = match find(&self.view.table, ask) {
            Found::Route(picked) => Target::Route(picked.host.clone(), picked.route.clone()),
            Found::RequireTls(_) => Target::RequireTls,
            Found::Nothing => Target::Nothing,
        };
        if let Target::Route(_, route) = &self.target {
            let exchange = &mut *self.flight.exchange.borrow_mut();
            exchange.route = Some(route.clone());
            // Who is denied later was still on the way to this cluster.
            if let RouteAction::Forward(forward) = &route.action
                && let Some(chosen) = split::choose(&forward.to, &self.asked.head(), self.random)
            {
                let entry = self.view.snapshot.clusters.get(&*chosen.cluster);
                exchange.upstream.cluster = entry.map(|entry| entry.cluster.clone());
            }
        }
    }

    /// The route and its host, where there is one.
    pub(super) fn route(&self) -> Option<(&Arc<VirtualHost>, &Arc<Route>)> {
        match &self.target {
            Target::Route(host, route) => Some((host, route)),
            Target::Nothing | Target::RequireTls => None,
        }
    }

    /// Upgrades pass only where the route, or else the chain, allows them.
    fn check_upgrade(&self) -> Result<(), Reply> {
        let Some(upgrade) = self.asked.upgrade.as_deref() else {
            return Ok(());
        };
        let by_route = self.route().and_then(|(_, route)| match &route.action {
            RouteAction::Forward(forward) => {
                let mut named = forward.upgrades.iter();
                named.find_map(|(name, allowed)| (**name == *upgrade).then_some(*allowed))
            }
            _ => None,
        });
        let by_chain = || {
            self.view
                .chain
                .upgrades
                .iter()
                .any(|name| **name == *upgrade)
        };
        match by_route.unwrap_or_else(by_chain) {
            true => Ok(()),
            false => Err(Refusal::Upgrade.into()),
        }
    }

    /// Does what the route says.
    async fn act(&mut self, landing: &Landing) -> Result<answer::Answered, Reply> {
        let (host, route) = match &self.target {
            Target::Route(host, route) => (host.clone(), route.clone()),
            Target::Nothing => {
                let status = http::StatusCode::NOT_FOUND;
                return Err(Reply::new(status, "", "route_not_found").flag(Flags::NO_ROUTE));
            }
            Target::RequireTls => {
                let location = redirect::to_tls(&self.asked.head());
                let status = http::StatusCode::MOVED_PERMANENTLY;
                return Err(Reply::redirect(status, &location));
            }
        };
        match &route.action {
            RouteAction::Forward(to) => forward::run(self, landing, &host, &route, to).await,
            RouteAction::Redirect(to) => {
                self.afterwards.change_headers(&host, &route, None);
                answer::keep(self);
                let location = redirect::location(to, &route.matches, &self.asked.head());
                Err(Reply::redirect(to.status, &location))
            }
            RouteAction::Direct { status, body } => {
                self.afterwards.change_headers(&host, &route, None);
                answer::keep(self);
                Err(Reply::new(*status, body.clone(), "direct_response"))
            }
        }
    }
}
