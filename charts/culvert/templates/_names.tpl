{{/* Names and labels that the objects share. */}}

{{- define "culvert.labels" -}}
app.kubernetes.io/part-of: culvert
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The control plane that ztunnel asks. */}}
{{- define "culvert.xdsAddress" -}}
{{- if .Values.xdsAddress -}}
{{ .Values.xdsAddress }}
{{- else if .Values.control.enabled -}}
https://culvert-control.{{ .Release.Namespace }}.svc:15012
{{- else -}}
https://istiod.istio-system.svc:15012
{{- end -}}
{{- end }}

{{- define "culvert.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
