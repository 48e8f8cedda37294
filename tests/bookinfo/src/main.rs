//! The sample application: every service of the bookstore, its clients and a stand-in for an
//! ingress gateway in one static binary, a role per argument. Called as `curl` it is the small
//! curl that the documents' commands need. It knows nothing of the mesh.

mod books;
mod echo;
mod fetch;
mod files;
mod gateway;
mod get;
mod headers;
mod hold;
mod idle;
mod load;
mod page;
mod productpage;
mod serve;
mod services;
mod stream;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The sample bookstore of the service mesh world, one role at a time.
#[derive(Parser)]
#[command(name = "bookinfo", version)]
struct Bookinfo {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Serve the page that people see; asks details and reviews.
    Productpage(productpage::Options),
    /// Serve a book's details.
    Details(serve::Options),
    /// Serve a book's reviews; versions 2 and 3 ask ratings for stars.
    Reviews(services::ReviewsOptions),
    /// Serve a book's ratings.
    Ratings(serve::Options),
    /// Stand in for an ingress gateway outside the mesh: forward everything to the product page.
    Gateway(gateway::Options),
    /// Do nothing until told to stop: a pod to call from.
    #[command(alias = "notsleep")]
    Sleep,
    /// Ask for a URL, as curl does, with curl's exit codes.
    Get(get::Options),
    /// Ask for a URL again and again, each time on a new connection, and count the outcomes.
    Load(load::Options),
    /// Hold one TCP connection to an echo open and check every line, until stdin ends.
    Hold(hold::Options),
    /// Answer each line of a connection with its number and the checksum of all so far.
    #[command(alias = "serve-tcp")]
    Echo(echo::Options),
    /// Serve the files of a folder.
    Files(files::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let called_as_curl = std::env::args_os()
        .next()
        .is_some_and(|name| Path::new(&name).file_name() == Some("curl".as_ref()));
    if called_as_curl {
        return get::run(get::Options::parse()).await;
    }
    let ended = match Bookinfo::parse().role {
        Role::Productpage(options) => productpage::run(options).await,
        Role::Details(options) => services::details(options).await,
        Role::Reviews(options) => services::reviews(options).await,
        Role::Ratings(options) => services::ratings(options).await,
        Role::Gateway(options) => gateway::run(options).await,
        Role::Sleep => idle::run().await,
        Role::Get(options) => return get::run(options).await,
        Role::Load(options) => load::run(options).await,
        Role::Hold(options) => hold::run(options).await,
        Role::Echo(options) => echo::run(options).await,
        Role::Files(options) => files::run(options).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bookinfo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    /// clap looks at itself only in builds that aren't optimised, and only at the role that is called.
    #[test]
    fn every_roles_options_can_stand_together() {
        super::Bookinfo::command().debug_assert();
    }
}
