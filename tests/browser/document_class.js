class HabittoWebSocketClient {
    constructor(userId, token) {
        this.userId = userId;
        this.token = token;
        this.socket = null;
        this.reconnectInterval = 5000;
    }
    
    connect() {
        const url = `ws://localhost:8000/ws/property-notifications/${this.userId}/?token=${this.token}`;
        this.socket = new WebSocket(url);
        
        this.socket.onopen = (event) => {
            console.log('Conectado a notificaciones');
            this.startPingInterval();
        };
        
        this.socket.onmessage = (event) => {
            const data = JSON.parse(event.data);
            this.handleMessage(data);
        };
        
        this.socket.onclose = (event) => {
            console.log('Desconectado de notificaciones');
            this.stopPingInterval();
            setTimeout(() => this.connect(), this.reconnectInterval);
        };
        
        this.socket.onerror = (error) => {
            console.error('Error de WebSocket:', error);
        };
    }
    
    handleMessage(data) {
        switch(data.type) {
            case 'property_like':
                this.showPropertyLikeNotification(data);
                break;
            case 'match_accepted':
                this.showMatchAcceptedNotification(data);
                break;
            case 'match_accepted_by_owner':
                this.showMatchAcceptedByOwnerNotification(data);
                break;
            case 'pong':
                // Respuesta a ping, ignorar
                break;
            case 'error':
                console.error('Error del servidor:', data.message);
                break;
        }
    }
    
    showPropertyLikeNotification(data) {
        const notification = {
            title: '¡Nuevo interesado en tu propiedad!',
            body: `${data.interested_user.first_name} ${data.interested_user.last_name} está interesado en tu propiedad`,
            data: data
        };
        
        // Mostrar notificación en UI o usar Web Push API
        this.displayNotification(notification);
    }
    
    showMatchAcceptedNotification(data) {
        const notification = {
            title: '¡Match Aceptado!',
            body: 'Has aceptado un match exitosamente',
            data: data
        };
        
        this.displayNotification(notification);
    }
    
    showMatchAcceptedByOwnerNotification(data) {
        const notification = {
            title: '¡Tu solicitud fue aceptada!',
            body: `El propietario ${data.owner_name} aceptó tu solicitud para ${data.property_title}`,
            data: data
        };
        
        this.displayNotification(notification);
    }
    
    displayNotification(notification) {
        // Implementar lógica de visualización de notificaciones
        console.log('Notificación:', notification);
        
        // Ejemplo con Web Push API
        if ('Notification' in window && Notification.permission === 'granted') {
            new Notification(notification.title, {
                body: notification.body,
                data: notification.data
            });
        }
    }
    
    startPingInterval() {
        this.pingInterval = setInterval(() => {
            if (this.socket.readyState === WebSocket.OPEN) {
                this.socket.send(JSON.stringify({ type: 'ping' }));
            }
        }, 30000); // Ping cada 30 segundos
    }
    
    stopPingInterval() {
        if (this.pingInterval) {
            clearInterval(this.pingInterval);
        }
    }
    
    disconnect() {
        if (this.socket) {
            this.socket.close();
        }
    }
}

// Uso
const client = new HabittoWebSocketClient(userId, jwtToken);
client.connect();
