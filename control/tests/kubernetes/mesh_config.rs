//! The mesh's configuration from the chart's value to what control reads of it.

use control::objects::mesh_config::{MeshConfig, Provider};
use plane::install;

#[test]
fn control_reads_what_the_chart_makes_of_its_value() {
    let of = |field: &str| format!("meshConfig.extensionProviders{field}");
    let values = [
        of("[0].name=ask"),
        of("[0].envoyExtAuthzGrpc.service=ask.shop.svc.cluster.local"),
        of("[0].envoyExtAuthzGrpc.port=9000"),
        of("[0].envoyExtAuthzGrpc.timeout=1.5s"),
        of("[0].envoyExtAuthzGrpc.failOpen=true"),
        of("[1].name=ask-http"),
        of("[1].envoyExtAuthzHttp.service=ask.shop.svc.cluster.local"),
        of("[1].envoyExtAuthzHttp.port=8000"),
        of("[1].envoyExtAuthzHttp.pathPrefix=/check"),
        of("[1].envoyExtAuthzHttp.includeRequestHeadersInCheck[0]=x-*"),
        of("[1].envoyExtAuthzHttp.includeRequestBodyInCheck.maxRequestBytes=1000"),
        of("[2].name=otel"),
        of("[2].opentelemetry.service=otel.shop.svc.cluster.local"),
        of("[2].opentelemetry.port=4318"),
        of("[2].opentelemetry.http.path=/v1/traces"),
        of("[3].name=zipkin"),
        of("[3].zipkin.service=otel.shop.svc.cluster.local"),
        of("[3].zipkin.port=9411"),
        of("[4].name=short"),
        of("[4].envoyFileAccessLog.path=/dev/stdout"),
        of("[4].envoyFileAccessLog.logFormat.labels.code=%RESPONSE_CODE%"),
        "meshConfig.defaultProviders.tracing[0]=otel".to_owned(),
        "meshConfig.accessLogFile=/dev/stdout".to_owned(),
        "meshConfig.accessLogEncoding=JSON".to_owned(),
        "meshConfig.enableTracing=false".to_owned(),
        "meshConfig.defaultConfig.tracing.sampling=12".to_owned(),
        "meshConfig.defaultConfig.tracing.customTags.a.literal.value=b".to_owned(),
    ];
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let objects = install::rendered(&values).unwrap().into_iter();
    let mut maps = objects.filter(|object| object["kind"] == "ConfigMap");
    let map = serde_json::from_value(maps.next().unwrap()).unwrap();
    let read = MeshConfig::from(&map);
    assert_eq!(read.key.to_string(), "istio-system/istio");
    let config = read.config.unwrap();
    assert_eq!(config.unused, [] as [&str; 0]);
    let grpc = config.providers["ask"].common();
    assert!(grpc.fail_open && grpc.port == 9000);
    assert_eq!(grpc.timeout.unwrap().0.as_millis(), 1500);
    let Provider::Http(http) = &config.providers["ask-http"] else {
        panic!("{:?}", config.providers);
    };
    assert_eq!(http.path_prefix, "/check");
    assert_eq!(http.include_request_headers_in_check, ["x-*"]);
    let body = http.common.include_request_body_in_check.unwrap();
    assert_eq!(body.max_request_bytes, 1000);
    let host = "otel.shop.svc.cluster.local";
    assert_eq!(config.tracers["otel"].place(), (host, 4318));
    assert_eq!(config.tracers["zipkin"].place(), (host, 9411));
    let format = config.loggers["short"].log_format.as_ref().unwrap();
    assert_eq!(format.labels.as_ref().unwrap()["code"], "%RESPONSE_CODE%");
    let defaults = &config.defaults;
    assert_eq!(defaults.providers.tracing, ["otel"]);
    assert_eq!(defaults.log_file, "/dev/stdout");
    assert!(defaults.log_format.is_some() && !defaults.traces);
    assert!((defaults.tracing.sampling - 12.0).abs() < f64::EPSILON);
    assert!(defaults.tracing.custom_tags["a"].literal.is_some());
    let without = install::rendered(&[]).unwrap();
    let map = without.iter().find(|object| object["kind"] == "ConfigMap");
    assert_eq!(map, None, "one that is there already is left alone");
}
