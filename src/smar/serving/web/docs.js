// The documentation page: Swagger UI from our own address, over our own OpenAPI file.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#docs", deepLinking: true, displayRequestDuration: true });
